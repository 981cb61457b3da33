package storetest

import (
	"errors"
	"testing"
	"time"

	"sallyport/store"
)

// entryIsGoneWhenItExpires waits for a real expiry, because a driver behind a
// network has no other clock.
func entryIsGoneWhenItExpires(t *testing.T, s store.Store) {
	ctx := t.Context()
	expires := time.Now().Add(1500 * time.Millisecond)
	e := mustPut(t, s, store.Entry{Key: "k", Expires: expires})
	mustPut(t, s, store.Entry{Key: "stays", Expires: expires.Add(time.Hour)})
	for {
		_, err := s.Get(ctx, "k")
		asked := time.Now()
		if errors.Is(err, store.ErrNotFound) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if asked.After(expires.Add(time.Second)) {
			t.Fatalf("Get still finds the entry %s after it expired", asked.Sub(expires))
		}
		time.Sleep(10 * time.Millisecond)
	}
	if early := time.Until(expires); early > time.Second {
		t.Errorf("the entry went %s too early", early)
	}
	entries, err := list(ctx, s, "")
	if err != nil {
		t.Fatal(err)
	}
	requireKeys(t, entries, []string{"stays"})
	if err := s.Delete(ctx, e); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Delete of an expired entry = %v, want ErrNotFound", err)
	}
	if _, err := s.Put(ctx, e); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Put at the revision of an expired entry = %v, want ErrConflict", err)
	}
	again := mustPut(t, s, store.Entry{Key: "k"})
	if again.Revision <= e.Revision {
		t.Errorf("after expiry, revision %d follows %d", again.Revision, e.Revision)
	}
}

func entryWrittenExpiredIsNeverSeen(t *testing.T, s store.Store) {
	for _, past := range []time.Time{
		time.Now().Add(-time.Second),
		time.Unix(0, 0),
		time.Unix(-5_000_000_000, 0), // 1811: before the epoch of most encodings
	} {
		mustPut(t, s, store.Entry{Key: "k", Expires: past})
		if _, err := s.Get(t.Context(), "k"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get of an entry that expired at %s = %v, want ErrNotFound", past, err)
		}
		if entries, err := list(t.Context(), s, ""); err != nil || len(entries) != 0 {
			t.Errorf("List with an entry that expired at %s = %d entries, %v", past, len(entries), err)
		}
	}
}
