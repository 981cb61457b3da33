package deploy

import (
	"os"
	"strings"
	"testing"
)

// TestUnitLetsTheServiceConfineItself: systemd ends a process at the first call that its
// filter lacks (systemd.exec(5), SystemCallFilter).
func TestUnitLetsTheServiceConfineItself(t *testing.T) {
	unit, err := os.ReadFile("sallyport.service")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for line := range strings.Lines(string(unit)) {
		if list, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter="); ok && !strings.HasPrefix(list, "~") {
			for name := range strings.FieldsSeq(list) {
				allowed[name] = true
			}
		}
	}
	for _, call := range []string{"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"} {
		if !allowed[call] {
			t.Errorf("%s is not allowed", call)
		}
	}
}
