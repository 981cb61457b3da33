package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"

	"golang.org/x/crypto/ssh"
)

// maxPublicKeyBytes bounds the text of a public key; RSA-8192 needs 1.4 KiB.
const maxPublicKeyBytes = 16 << 10

// ParsePublicKey reads one line of authorized_keys form, "type base64 [comment]",
// of at most 16 KiB. Options, further lines and control characters are refused,
// and the comment is dropped. Accepted are ed25519, ecdsa, their security-key
// forms, and RSA of 3072 to 8192 bits; certificates, DSA, all other types, and
// keys that can be used or found without their owner are not. Every error is a [*RequestError] with [CodePublicKey].
//
// x/crypto's ParseAuthorizedKey is not used: it skips lines that it cannot read,
// takes options, and returns certificates and keys of any strength.
func ParsePublicKey(text string) (ssh.PublicKey, error) {
	if len(text) > maxPublicKeyBytes {
		return nil, badKey("longer than %d bytes", maxPublicKeyBytes)
	}
	line := strings.Trim(text, " \t\r\n")
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return nil, badKey("must be one line without control characters")
	}
	name, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
	if err := checkTypeName(name); err != nil {
		return nil, err
	}
	encoded, _, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
	blob, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(blob) == 0 {
		return nil, badKey("the key after %q is not base64", name)
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, badKey("not a readable %s key", name)
	}
	if key.Type() != name {
		return nil, badKey("says %q and contains another type", name)
	}
	return checkPublicKey(key)
}

func badKey(format string, args ...any) *RequestError {
	return &RequestError{Code: CodePublicKey, Field: "public_key", Detail: fmt.Sprintf(format, args...)}
}

// checkTypeName allows the types that OpenSSH reads in all supported releases.
func checkTypeName(name string) error {
	switch name {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
		ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA:
		return nil
	}
	if strings.Contains(name, "-cert-v0") {
		return badKey("is a certificate; give the plain public key")
	}
	return badKey("%q is not an accepted key type (ed25519, sk-ed25519, ecdsa, sk-ecdsa, or rsa of %d bits and more; no options)",
		clip(name), minRSABits)
}

// checkPublicKey decides whether a key may be certified, and returns it as
// x/crypto reads its wire form: a type made elsewhere, a certificate above all,
// would make x/crypto panic while signing.
func checkPublicKey(key ssh.PublicKey) (ssh.PublicKey, error) {
	if key == nil {
		return nil, badKey("is missing")
	}
	if _, ok := key.(*ssh.Certificate); ok { // before Marshal, which panics on one inside another
		return nil, badKey("is a certificate; give the plain public key")
	}
	blob := key.Marshal()
	if len(blob) > maxPublicKeyBytes {
		return nil, badKey("longer than %d bytes", maxPublicKeyBytes)
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, badKey("not readable")
	}
	if err := checkTypeName(key.Type()); err != nil {
		return nil, err
	}
	inner, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return nil, badKey("of type %q is not accepted", key.Type())
	}
	if err := checkStrength(inner.CryptoPublicKey()); err != nil {
		return nil, err
	}
	return key, nil
}

func checkStrength(key crypto.PublicKey) error {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return checkEd25519(k)
	case *ecdsa.PublicKey:
		return nil // x/crypto has checked that the point is on its curve
	case *rsa.PublicKey:
		return checkRSA(k)
	default:
		return badKey("is of a type that is not accepted")
	}
}

func checkRSA(k *rsa.PublicKey) error {
	if n := k.N.BitLen(); k.N.Sign() <= 0 || n < minRSABits || n > maxRSABits {
		return badKey("rsa key has %d bits; %d to %d are accepted", n, minRSABits, maxRSABits)
	}
	if k.E < 65537 || k.E%2 == 0 {
		return badKey("rsa exponent %d is not accepted; it must be odd and at least 65537", k.E)
	}
	if hasSmallFactor(k.N) {
		return badKey("rsa modulus has a small factor; the key is broken")
	}
	if hasCloseFactors(k.N) {
		return badKey("rsa modulus is a product of primes too close together (CVE-2022-26320); the key is broken")
	}
	if isROCA(k.N) {
		return badKey("rsa key comes from a generator with a known weakness (CVE-2017-15361)")
	}
	return nil
}

// hasSmallFactor also catches an even modulus, and damage to a good one.
func hasSmallFactor(n *big.Int) bool {
	if n.Bit(0) == 0 {
		return true
	}
	var rest big.Int
	for d := int64(3); d < 1000; d += 2 {
		if rest.Mod(n, big.NewInt(d)).Sign() == 0 {
			return true
		}
	}
	return false
}

// isROCA recognises keys of Infineon's library: their primes are powers of 65537
// modulo every small prime, so the modulus is as well. For the primes below, few
// residues are such powers; a sound key passes for one of these keys with a
// probability of about 2^-27 (Nemec et al., CCS 2017).
func isROCA(n *big.Int) bool {
	var rest big.Int
	for _, p := range []int64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157} {
		want := rest.Mod(n, big.NewInt(p)).Int64()
		power := int64(1)
		for range p {
			if power == want {
				break
			}
			power = power * 65537 % p
		}
		if power != want {
			return false
		}
	}
	return true
}
