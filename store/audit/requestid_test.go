package audit

import (
	"strings"
	"testing"
)

func TestCleanRequestIDTakesOnlySafeNames(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"a", "req-1", "A.b_c-9", strings.Repeat("x", 64), NewRequestID()} {
		if got, ok := CleanRequestID(id); !ok || got != id {
			t.Errorf("CleanRequestID(%q) = %q, %t; want it unchanged", id, got, ok)
		}
	}
	for _, id := range []string{"", strings.Repeat("x", 65), "a b", "a\n", "a:b", "a/b", "ä", "a\x00", "\xff", "<a>", `a"`} {
		if got, ok := CleanRequestID(id); ok || got != "" {
			t.Errorf("CleanRequestID(%q) = %q, %t; want it refused", id, got, ok)
		}
	}
}

func TestNewRequestIDsAreDifferent(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		id := NewRequestID()
		if seen[id] || len(id) < 20 {
			t.Fatalf("NewRequestID returned %q", id)
		}
		seen[id] = true
	}
}

func TestTheRequestTravelsInTheContext(t *testing.T) {
	t.Parallel()
	want := Request{ID: "r", SourceIP: "192.0.2.1"}
	if got := RequestFrom(WithRequest(t.Context(), want)); got != want {
		t.Errorf("RequestFrom = %v, want %v", got, want)
	}
	if got := RequestFrom(t.Context()); got != (Request{}) {
		t.Errorf("RequestFrom of a bare context = %v, want the zero Request", got)
	}
}
