package executor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestNothingThatRestsOnSHA1IsOffered(t *testing.T) {
	t.Parallel()
	config := algorithms()
	offered := slices.Concat(config.KeyExchanges, config.Ciphers, config.MACs, hostTrust{authorities: make([]ssh.PublicKey, 1)}.algorithms())
	if len(offered) < 20 {
		t.Fatalf("only %q are offered", offered)
	}
	for _, name := range offered {
		if strings.Contains(name, "sha1") || strings.HasPrefix(name, "ssh-rsa") || strings.HasPrefix(name, "ssh-dss") || strings.HasSuffix(name, "-cbc") {
			t.Errorf("%s is offered", name)
		}
	}
}

func TestKnownHostKeyTypesAreAskedForFirst(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecdsaKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := func(key any) ssh.PublicKey {
		p, err := ssh.NewPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	knownRSA, knownECDSA := public(rsaKey.Public()), public(ecdsaKey.Public())
	for name, test := range map[string]struct {
		trust hostTrust
		first []string
		certs bool
	}{
		"rsa":    {hostTrust{keys: []ssh.PublicKey{knownRSA}}, []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}, false},
		"ecdsa":  {hostTrust{keys: []ssh.PublicKey{knownECDSA}}, []string{ssh.KeyAlgoECDSA384}, false},
		"CA":     {hostTrust{authorities: []ssh.PublicKey{knownECDSA}}, nil, true},
		"CA too": {hostTrust{authorities: []ssh.PublicKey{knownRSA}, keys: []ssh.PublicKey{knownECDSA}}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list := test.trust.algorithms()
			if test.first != nil && !slices.Equal(list[:len(test.first)], test.first) {
				t.Errorf("order is %q", list)
			}
			isCert := func(a string) bool { return strings.Contains(a, "-cert-") }
			if slices.ContainsFunc(list, isCert) != test.certs || isCert(list[0]) != test.certs {
				t.Errorf("order is %q", list)
			}
			if name == "CA too" && slices.Index(list, ssh.KeyAlgoECDSA384) > slices.Index(list, ssh.KeyAlgoED25519) {
				t.Errorf("order is %q", list)
			}
		})
	}
}
