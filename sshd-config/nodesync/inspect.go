package nodesync

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Verdict is how a check ended.
type Verdict string

// From good to bad. Unknown says that the check could not be made, which is no comfort.
const (
	Good    Verdict = "ok"
	Unknown Verdict = "unknown"
	Warning Verdict = "warning"
	Bad     Verdict = "bad"
)

// A Finding is one check of a node. Remedy is empty if nothing is to be done.
type Finding struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail"`
	Remedy  string  `json:"remedy,omitempty"`
}

// Inspection says what to inspect. Its Config needs no Fetch.
type Inspection struct {
	Config
	// Appliance is the address that the service connects from, User an account that it logs in: what holds in sshd for them
	// is inspected. Without Appliance, sshd's configuration is not looked at.
	Appliance, User string
}

// inspector collects findings.
type inspector struct {
	Inspection
	findings []Finding
	manifest *Manifest // nil: none that can be read
}

func (i *inspector) add(check string, v Verdict, detail, remedy string) {
	i.findings = append(i.findings, Finding{check, v, detail, remedy})
}

// Inspect looks at the node that it runs on and changes nothing. As root it sees all.
func Inspect(ctx context.Context, in Inspection) []Finding {
	i := &inspector{Inspection: in}
	i.owners()
	i.manifestFile()
	i.trustFile(ctx)
	i.revocationFile(ctx)
	version := i.sshdVersion(ctx)
	if in.Appliance != "" {
		i.effective(ctx, version)
	}
	return i.findings
}

const syncRemedy = "run: sallyport node sync, or the script sallyport-node-sync"

// owners finds what sshd itself does not look at: who may write the files.
func (i *inspector) owners() {
	for _, f := range []struct {
		path string
		kind os.FileMode
	}{
		{i.Dir, os.ModeDir}, {i.path(TrustFile), 0}, {i.path(RevocationFile), 0}, {i.signers(), 0},
	} {
		if err := checkOwn(f.path, f.kind); err != nil {
			i.add("owner and mode", Bad, err.Error(), "sshd does not check this: chown root:root and chmod go-w, then find out who wrote there")
			continue
		}
		i.add("owner and mode", Good, f.path, "")
	}
}

func (i *inspector) path(name string) string { return filepath.Join(i.Dir, name) }

func (i *inspector) manifestFile() {
	r := &release{files: map[string][]byte{}}
	for _, name := range order() {
		text, err := os.ReadFile(i.path(name))
		if err != nil {
			i.add("manifest", Bad, err.Error(), syncRemedy)
			return
		}
		r.files[name] = text
	}
	if err := r.verify(i.signers()); err != nil {
		i.add("manifest", Bad, err.Error(), syncRemedy+"; if it stays, compare distribution_signers with the service's distribution_key.pub")
		return
	}
	m := r.manifest
	i.manifest = &m
	for name, want := range map[string]FileSum{TrustFile: m.Trust, RevocationFile: m.Revocation} {
		if Sum(r.files[name]) != want {
			i.add("manifest", Bad, name+" is not the file that the manifest names", syncRemedy+"; find out who changed it")
		}
	}
	until := fmt.Sprintf("version %d, good until %s", m.Version, timeText(m.ExpiresAt))
	if m.ended(time.Now()) {
		i.add("manifest", Bad, until+": it has expired", "see why this node is not served: systemctl status sallyport-node-sync.timer sallyport-node-sync.service")
		return
	}
	if m.IssuedAt.After(time.Now().Add(maxSkew)) {
		i.add("manifest", Bad, until+": it was issued in the future, on "+timeText(m.IssuedAt), "this node's clock is wrong, so that it would adopt manifests that have ended: see chronyc tracking or timedatectl")
		return
	}
	i.add("manifest", Good, until, "")
}

// trustFile reads as sshd does: up to the first line that it cannot parse.
func (i *inspector) trustFile(ctx context.Context) {
	text, err := os.ReadFile(i.path(TrustFile))
	if err != nil {
		i.add("trust file", Bad, err.Error()+": no login by a certificate works", syncRemedy)
		return
	}
	read, total := 0, 0
	number, stop := 0, 0
	for line := range bytes.Lines(text) {
		number++
		line := strings.TrimSpace(string(line))
		if line == "" || line[0] == '#' {
			continue
		}
		total++
		if stop > 0 {
			continue
		}
		if i.readsKey(ctx, line) {
			read++
		} else {
			stop = number
		}
	}
	switch {
	case stop > 0:
		i.add("trust file", Bad, fmt.Sprintf("sshd stops at line %d without a word: %d of %d keys count", stop, read, total), syncRemedy+"; if it stays, this OpenSSH does not know the key's algorithm")
	case total == 0:
		i.add("trust file", Warning, "it has no key: no login by a certificate works", "right after a compromise without a standby; otherwise "+syncRemedy)
	default:
		i.add("trust file", Good, fmt.Sprintf("%d keys, all read", total), "")
	}
}

// readsKey asks this node's ssh-keygen about one line.
func (i *inspector) readsKey(ctx context.Context, line string) bool {
	if !keyLine.MatchString(line) {
		return false
	}
	dir, err := os.MkdirTemp("", "sallyport-check-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a folder of temporary files
	path := filepath.Join(dir, "key.pub")
	if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
		return false
	}
	_, code, err := runTool(ctx, i.SSHKeygen, "-l", "-f", path)
	return err == nil && code == 0
}

func (i *inspector) revocationFile(ctx context.Context) {
	const check = "revocation list"
	info, err := os.Stat(i.path(RevocationFile))
	if err != nil {
		i.add(check, Bad, err.Error()+": every login by a public key is refused", syncRemedy)
		return
	}
	if info.Size() == 0 {
		i.add(check, Bad, "it is empty: nobody is revoked", syncRemedy)
		return
	}
	if i.manifest == nil {
		out, code, err := runTool(ctx, i.SSHKeygen, "-Q", "-f", i.path(RevocationFile))
		if err != nil || code != 0 {
			i.add(check, Bad, fmt.Sprintf("it is not valid, so every login by a public key is refused: %s", out), syncRemedy)
			return
		}
		i.add(check, Unknown, "it is valid; without a manifest there is no canary to ask for", syncRemedy)
		return
	}
	dir, err := os.MkdirTemp("", "sallyport-check-")
	if err != nil {
		i.add(check, Unknown, err.Error(), "")
		return
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a folder of temporary files
	if err := i.askList(ctx, dir); err != nil {
		i.add(check, Bad, err.Error(), syncRemedy)
		return
	}
	detail := "valid, and the active key is not in it"
	if i.manifest.Canary != "" {
		detail += "; the canary is"
	}
	i.add(check, Good, detail, "")
}

// askList asks as a run of Sync does, of the files that are in place.
func (i *inspector) askList(ctx context.Context, dir string) error {
	trust, err := os.ReadFile(i.path(TrustFile))
	if err != nil {
		return err
	}
	list, err := os.ReadFile(i.path(RevocationFile))
	if err != nil {
		return err
	}
	stage := map[string][]byte{RevocationFile: list, "canary-cert.pub": []byte(i.manifest.Canary + "\n")}
	if lines := keyLines(trust); len(lines) > 0 {
		stage["active.pub"] = []byte(lines[0] + "\n")
	}
	for name, content := range stage {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	r := release{manifest: *i.manifest}
	return r.checkRevocation(ctx, i.SSHKeygen, dir)
}

// sshdVersion returns major and minor; zeros if they cannot be had.
func (i *inspector) sshdVersion(ctx context.Context) (version [2]int) {
	if i.SSHD == "" {
		i.add("sshd", Unknown, "it was not found", "give --sshd")
		return version
	}
	out, _, err := runTool(ctx, i.SSHD, "-V") // before 9.3 a complaint, with the version all the same
	_, after, ok := strings.Cut(out, "OpenSSH_")
	if err != nil || !ok {
		i.add("sshd", Unknown, "it does not tell its version", "")
		return version
	}
	text := strings.FieldsFunc(after, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })[0]
	major, minor, _ := strings.Cut(text, ".")
	version[0], _ = strconv.Atoi(major) // digits, and 0 means unknown
	version[1], _ = strconv.Atoi(minor)
	if slices.Compare(version[:], []int{8, 1}) < 0 {
		i.add("sshd", Warning, "OpenSSH "+text+": its ssh-keygen verifies no signatures, so the shell script cannot run here", "use the program: sallyport node sync")
		return version
	}
	i.add("sshd", Good, "OpenSSH "+text, "")
	return version
}
