package nodesync_test

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	sshdconfig "sallyport/sshd-config"
	"sallyport/sshd-config/nodesync"
)

// realSSHD runs sshd where the folder that it wants exists, whatever this host is.
const realSSHD = `#!/bin/sh
exec unshare --mount sh -c 'mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd "$@"' sh "$@"
`

// effective is what the doctor says of a configuration, for connections from 192.0.2.10.
func effective(t *testing.T, dir, config string) map[string]nodesync.Finding {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("sshd -T -C takes root; CI is root")
	}
	keygenPath, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Fatal(err)
	}
	hostKey, sshd, file := filepath.Join(dir, "host_key"), filepath.Join(dir, "sshd"), filepath.Join(dir, "sshd_config")
	if _, err := os.Stat(hostKey); err != nil {
		if out, err := keygen(t, nil, "-q", "-t", "ed25519", "-N", "", "-f", hostKey); err != nil {
			t.Fatalf("%v, %s", err, out)
		}
	}
	for path, content := range map[string]string{sshd: realSSHD, file: "HostKey " + hostKey + "\n" + config} {
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	found := map[string]nodesync.Finding{}
	for _, f := range nodesync.Inspect(t.Context(), nodesync.Inspection{
		Config:    nodesync.Config{Dir: dir, SSHKeygen: keygenPath, SSHD: sshd, SSHDConfig: file},
		Appliance: "192.0.2.10", User: "nobody",
	}) {
		keyword, _, _ := strings.Cut(f.Detail, " ")
		if f.Check != "sshd configuration" {
			keyword = f.Check
		}
		found[keyword] = f
	}
	return found
}

func TestTheDoctorFindsNothingWrongWithTheDropIn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dropIn, err := sshdconfig.Render(sshdconfig.Config{
		Addresses:         []netip.Prefix{netip.MustParsePrefix("192.0.2.10/32")},
		TrustedUserCAKeys: filepath.Join(dir, nodesync.TrustFile), RevokedKeys: filepath.Join(dir, nodesync.RevocationFile),
		Version: sshdconfig.Version{Major: 9, Minor: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	found := effective(t, dir, dropIn.String())
	if len(found) < 14 {
		t.Errorf("only %d checks were made: %v", len(found), found)
	}
	for keyword, f := range found {
		inFiles := f.Check == "manifest" || f.Check == "trust file" || f.Check == "revocation list" || f.Check == "owner and mode"
		if !inFiles && f.Verdict != nodesync.Good {
			t.Errorf("%s: %+v", keyword, f)
		}
		if inFiles && f.Verdict != nodesync.Bad {
			t.Errorf("%s: the folder is empty, and it says %+v", keyword, f)
		}
		if f.Verdict != nodesync.Good && f.Remedy == "" {
			t.Errorf("%s: no remedy: %+v", keyword, f)
		}
	}
}

func TestTheDoctorFindsWhatTheDefaultsOfSSHDLackAndEachHasARemedy(t *testing.T) {
	t.Parallel()
	found := effective(t, t.TempDir(), "AuthorizedPrincipalsFile /etc/ssh/principals\nPermitRootLogin yes\n")
	for keyword, want := range map[string]nodesync.Verdict{
		"trustedusercakeys": nodesync.Bad, "revokedkeys": nodesync.Bad, "authorizedprincipalsfile": nodesync.Bad, "permitrootlogin": nodesync.Bad,
		"authorizedkeysfile": nodesync.Warning, "denygroups": nodesync.Warning, "passwordauthentication": nodesync.Warning,
		"loglevel": nodesync.Warning, "pubkeyauthentication": nodesync.Good, "host key": nodesync.Good, "sshd": nodesync.Good,
	} {
		if f := found[keyword]; f.Verdict != want || want != nodesync.Good && f.Remedy == "" {
			t.Errorf("%s: got %+v, want %s with a remedy", keyword, f, want)
		}
	}
}

func TestAParseStopIsFoundAtItsLine(t *testing.T) {
	t.Parallel()
	one, _ := newSigner(t)
	two, _ := newSigner(t)
	first, second := string(ssh.MarshalAuthorizedKey(one.PublicKey())), string(ssh.MarshalAuthorizedKey(two.PublicKey()))
	for text, want := range map[string]string{
		"# comment\n" + first + "\n" + second:           "2 keys, all read",
		first + "cert-authority " + second:              "sshd stops at line 2 without a word: 1 of 2 keys count",
		"ssh-ed25519 AAAA\n" + first + second:           "sshd stops at line 1 without a word: 0 of 3 keys count",
		first + "# c\nssh-unknown " + "AAAA\n" + second: "sshd stops at line 3 without a word: 1 of 3 keys count",
		"# nothing\n": "it has no key",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, nodesync.TrustFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		said := ""
		for _, f := range nodesync.Inspect(t.Context(), nodesync.Inspection{Config: nodesync.Config{Dir: dir, SSHKeygen: "ssh-keygen"}}) {
			if f.Check == "trust file" {
				said = f.Detail
			}
		}
		if !strings.Contains(said, want) {
			t.Errorf("%q: got %q, want %q", text, said, want)
		}
	}
}
