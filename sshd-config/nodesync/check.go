package nodesync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// incoming is the folder in a node's folder for files that are not yet checked.
const incoming = ".incoming"

// toolTimeout bounds each run of ssh-keygen and sshd.
const toolTimeout = 20 * time.Second

// check has the node's own OpenSSH read the files, in a folder that sshd does not look at. No file in place is touched.
func (r *release) check(ctx context.Context, cfg Config) (err error) {
	dir := filepath.Join(cfg.Dir, incoming)
	cfg.step("check in " + incoming)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	lines := keyLines(r.files[TrustFile])
	stage := map[string][]byte{TrustFile: r.files[TrustFile], RevocationFile: r.files[RevocationFile]}
	if r.manifest.hasActive() {
		stage["active.pub"] = []byte(lines[0] + "\n")
	}
	if r.manifest.Canary != "" {
		stage["canary-cert.pub"] = []byte(r.manifest.Canary + "\n")
	}
	for name, content := range stage {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	if err := r.checkTrust(ctx, cfg.SSHKeygen, filepath.Join(dir, TrustFile), lines); err != nil {
		return fmt.Errorf("%s: %w", TrustFile, err)
	}
	return r.checkRevocation(ctx, cfg.SSHKeygen, dir)
}

// keyLines are the lines that sshd takes for keys.
func keyLines(text []byte) []string {
	var lines []string
	for line := range bytes.Lines(text) {
		if line := strings.TrimSuffix(string(line), "\n"); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines
}

// keyLine has no options: sshd stops reading at a line that has some.
var keyLine = regexp.MustCompile(`^[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}( [ -~]*)?$`)

// checkTrust counts, because ssh-keygen leaves out a line that it cannot read and says nothing; sshd stops reading there.
func (r *release) checkTrust(ctx context.Context, keygen, path string, lines []string) error {
	for i, line := range lines {
		if !keyLine.MatchString(line) {
			return fmt.Errorf("key %d is not of the form: KEYTYPE KEY COMMENT", i+1)
		}
	}
	if len(lines) != len(r.manifest.Keys) {
		return fmt.Errorf("it has %d keys, the manifest says %d", len(lines), len(r.manifest.Keys))
	}
	if len(lines) == 0 {
		return nil
	}
	out, code, err := runTool(ctx, keygen, "-l", "-f", path)
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("ssh-keygen -l finds no key in it: %s", out)
	}
	var got, want []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 {
			got = append(got, f[1])
		}
	}
	for _, k := range r.manifest.Keys {
		want = append(want, k.Fingerprint)
	}
	if len(got) != len(lines) {
		return fmt.Errorf("this node's ssh-keygen reads %d of %d keys: sshd would stop at the first that it does not know; update OpenSSH, or have the CA keep to known algorithms", len(got), len(lines))
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("it has the keys %v, the manifest says %v", got, want)
	}
	return nil
}

// checkRevocation asks of the list what sshd would ask. An invalid list would refuse every login.
func (r *release) checkRevocation(ctx context.Context, keygen, dir string) error {
	ask := func(files ...string) (string, int, error) {
		return runTool(ctx, keygen, append([]string{"-Q", "-f", filepath.Join(dir, RevocationFile)}, files...)...)
	}
	out, code, err := ask()
	if r.manifest.hasActive() {
		out, code, err = ask(filepath.Join(dir, "active.pub"))
	}
	switch {
	case err != nil:
		return err
	case code == 1:
		return fmt.Errorf("%s revokes the active key: no login would work", RevocationFile)
	case code != 0:
		return fmt.Errorf("%s is not valid: %s", RevocationFile, out)
	}
	if r.manifest.Canary == "" {
		return nil
	}
	out, code, err = ask(filepath.Join(dir, "canary-cert.pub"))
	if err == nil && code != 1 {
		err = fmt.Errorf("%s does not revoke the canary, so it would revoke nobody: %s", RevocationFile, out)
	}
	return err
}

func (m Manifest) hasActive() bool { return len(m.Keys) > 0 && m.Keys[0].State == StateActive }

// runTool runs a program of OpenSSH and returns what it says, cut to a line's length, and its exit code.
func runTool(ctx context.Context, program string, args ...string) (string, int, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	text := string(out[:min(len(out), 64<<10)])
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() >= 0 {
		return strings.TrimSpace(text), exit.ExitCode(), nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w", program, err)
	}
	return text, 0, nil
}

// afterwards does what a node may want after a change.
func afterwards(ctx context.Context, cfg Config) error {
	if restorecon, err := exec.LookPath("restorecon"); err == nil {
		if out, code, err := runTool(ctx, restorecon, "-R", cfg.Dir); err != nil || code != 0 {
			return fmt.Errorf("restorecon: exit code %d, %s: %w", code, out, err)
		}
	}
	if cfg.SSHD == "" {
		return nil
	}
	args := []string{"-t"}
	if cfg.SSHDConfig != "" {
		args = append(args, "-f", cfg.SSHDConfig)
	}
	out, code, err := runTool(ctx, cfg.SSHD, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("the files are in place, but sshd's configuration is not valid: sshd -t: %s", out)
	}
	return err
}
