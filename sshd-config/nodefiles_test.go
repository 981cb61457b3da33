package sshdconfig_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	sshdconfig "sallyport/sshd-config"
)

func TestTheThreatModelSaysHowLateANodeCanBe(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(strings.Fields(string(text)), " ")
	for inTimer, inText := range map[string]string{
		"\nOnCalendar=*:0/5\n": "(every 5 minutes, at", "\nRandomizedDelaySec=2min\n": "up to 2 minutes later)",
	} {
		if !bytes.Contains(sshdconfig.NodeSyncTimer, []byte(inTimer)) || !strings.Contains(said, inText) {
			t.Errorf("the timer has %q and the text %q only together", inTimer, inText)
		}
	}
	if !strings.Contains(said, "within 7 minutes with the timer that we ship") || strings.Contains(said, "valid and empty") {
		t.Error("the text has another bound than the timer's, or says that the list is empty")
	}
}

func TestSystemdTakesTheUnits(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatalf("systemd-analyze is not installed (Debian package systemd): %v", err)
	}
	dir := t.TempDir()
	service := filepath.Join(dir, "sallyport-node-sync.service")
	// It must name a program that is there.
	unit := bytes.Replace(sshdconfig.NodeSyncService, []byte("/usr/local/sbin/sallyport-node-sync"), []byte("/bin/true"), 1)
	if bytes.Equal(unit, sshdconfig.NodeSyncService) {
		t.Fatal("the service does not run /usr/local/sbin/sallyport-node-sync")
	}
	timer := filepath.Join(dir, "sallyport-node-sync.timer")
	for path, content := range map[string][]byte{service: unit, timer: sshdconfig.NodeSyncTimer} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", service, timer).CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// Exposure from 0 (none) to 100.
	out, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=25", service).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	if !strings.Contains(string(sshdconfig.NodeSyncTimer), "\nRandomizedDelaySec=") {
		t.Error("all nodes would ask at the same moment")
	}
}

func TestTheScriptIsPOSIX(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, sshdconfig.NodeSyncScript, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, shell := range [][]string{{"dash", "-n"}, {"bash", "--posix", "-n"}} {
		if out, err := exec.CommandContext(t.Context(), shell[0], append(shell[1:], path)...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", shell, err, out)
		}
	}
}
