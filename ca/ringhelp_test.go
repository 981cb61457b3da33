package ca

import (
	"path/filepath"
	"testing"
	"time"
)

func testKeys(dir string) KeyFolder { return KeyFolder{Dir: filepath.Join(dir, "keys")} }

// replaceActive makes a new key the active one without asking any node.
func (w *world) replaceActive(t testing.TB) {
	t.Helper()
	v, err := w.ring.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	key, err := w.ring.keys.Create("replacement")
	if err != nil {
		t.Fatal(err)
	}
	r := v.ring
	i := len(r.Keys)
	for _, m := range []move{stage(newRingKey(key.PublicKey(), "replacement", KeyStaged, now)), publish, activate} {
		if r, err = r.next(m, i, now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.ring.write(t.Context(), r, v.revision); err != nil {
		t.Fatal(err)
	}
}
