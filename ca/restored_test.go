package ca

import (
	"errors"
	"testing"

	"sallyport/store"
)

func TestARestoredStoreHasNoCredentialsAndANewerRevocationList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cache, err := NewCache(CacheConfig{Authority: w.Authority, Store: w.db})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := cache.Credential(t.Context(), alice(t), "daint"); err != nil {
		t.Fatal(err)
	}
	if n := count(t, w.db, "credential/"); n != 1 {
		t.Fatalf("%d cached credentials, want 1", n)
	}
	rows, before := len(w.rows(t)), w.RevocationVersion()
	if err := Restored(t.Context(), w.db); err != nil {
		t.Fatal(err)
	}
	if n := count(t, w.db, "credential/"); n != 0 {
		t.Errorf("%d cached credentials are left", n)
	}
	again, err := New(w.auth)
	if err != nil {
		t.Fatal(err)
	}
	if after := again.RevocationVersion(); after <= before {
		t.Errorf("the list has version %d, and nodes have seen %d", after, before)
	}
	if n := len(rowsOf(t, again)); n != rows {
		t.Errorf("%d rows in the ledger, want %d", n, rows)
	}
	w.close(t)
	if err := Restored(t.Context(), w.db); !errors.Is(err, store.ErrClosed) {
		t.Errorf("a store that cannot be read: %v", err)
	}
}

func count(t *testing.T, s store.Store, prefix string) (n int) {
	t.Helper()
	for _, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}
