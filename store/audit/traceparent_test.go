package audit

import "testing"

const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestTraceparentIsTakenOnlyInItsForm(t *testing.T) {
	if got, ok := CleanTraceparent(trace); !ok || got != trace {
		t.Errorf("CleanTraceparent(%q) = %q, %t; want it unchanged", trace, got, ok)
	}
	if got, want := TraceID(trace), "4bf92f3577b34da6a3ce929d0e0e4736"; got != want {
		t.Errorf("TraceID = %q, want %q", got, want)
	}
	if got := TraceID(""); got != "" {
		t.Errorf("TraceID of nothing = %q", got)
	}
	for _, s := range []string{
		"",
		"00",
		trace + "-00",
		"01" + trace[2:],
		"ff" + trace[2:],
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
		"00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
		"00-4bf92f3577b34da6a3ce929d0e0e473\n-00f067aa0ba902b7-01",
		"00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
	} {
		if got, ok := CleanTraceparent(s); ok || got != "" {
			t.Errorf("CleanTraceparent(%q) = %q, %t; want it refused", s, got, ok)
		}
	}
}
