package logreceiver_test

import (
	"testing"

	"sallyport/internal/logreceiver"
)

func TestCollectorServerStarts(t *testing.T) {
	r, err := logreceiver.Collector(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Kill()
	if lines, err := r.Lines(); err != nil || len(lines) != 0 {
		t.Errorf("it wrote %q, %v", lines, err)
	}
}
