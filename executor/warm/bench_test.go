package warm

import "testing"

// BenchmarkCommand is an external command in a worker on this machine, without SSH.
func BenchmarkCommand(b *testing.B) {
	w, _ := startShell(b, script)
	for b.Loop() {
		if got := run(w, Command{Argv: []string{"/bin/true"}}, nil); got != (outcome{}) {
			b.Fatal(got)
		}
	}
}
