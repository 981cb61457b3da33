// Package storetest holds what every driver of [store.Store] must pass.
//
// [Run] is the conformance suite; it works with the real clock, so that a driver
// behind a network passes it as well. [Model] compares a store with a map; a
// driver whose clock can be steered (in a testing/synctest bubble) runs it with
// expiry in play.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/store"
)

// Run runs the suite. open returns a new empty store that is closed, if the test
// did not do so, when its t ends.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	tests := []struct {
		name string
		run  func(t *testing.T, s store.Store)
	}{
		{"Get returns what Put wrote", getReturnsWhatPutWrote},
		{"values are not shared with the caller", valuesAreNotShared},
		{"the limits of keys and values are enforced", limitsAreEnforced},
		{"Put swaps only the current revision", putSwapsOnlyCurrentRevision},
		{"Delete removes only the current revision", deleteRemovesOnlyCurrentRevision},
		{"revisions rise across deletion", revisionsRiseAcrossDeletion},
		{"an entry is gone from the moment it expires", entryIsGoneWhenItExpires},
		{"an entry that is written expired is never seen", entryWrittenExpiredIsNeverSeen},
		{"List yields the prefix in byte order", listYieldsPrefixInOrder},
		{"List lets writers work meanwhile", listLetsWritersWork},
		{"a context that is over changes nothing", endedContextChangesNothing},
		{"concurrent swaps lose nothing", concurrentSwapsLoseNothing},
		{"one of many creators wins", oneCreatorWins},
		{"a closed store refuses every call", closedStoreRefuses},
		{"any sequence of calls agrees with a map", func(t *testing.T, s store.Store) {
			rapid.Check(t, func(rt *rapid.T) { Model(rt, s, nil) })
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, open(t))
		})
	}
}

func getReturnsWhatPutWrote(t *testing.T, s store.Store) {
	for _, e := range []store.Entry{
		{Key: "t/text", Value: []byte("hello")},
		{Key: "t/empty"},
		{Key: "t/binary", Value: []byte{0, 1, 0xff, '\n'}},
		{Key: "t/expiring", Value: []byte("x"), Expires: time.Now().Add(time.Hour)},
		{Key: "!~", Value: []byte("the ends of the alphabet")},
	} {
		put := mustPut(t, s, e)
		if put.Revision == 0 {
			t.Errorf("Put(%q) returned revision 0", e.Key)
		}
		got, err := s.Get(t.Context(), e.Key)
		if err != nil {
			t.Fatalf("Get(%q): %v", e.Key, err)
		}
		requireSame(t, got, put)
		if !bytes.Equal(got.Value, e.Value) {
			t.Errorf("Get(%q) = %q, want %q", e.Key, got.Value, e.Value)
		}
		if d := e.Expires.Sub(got.Expires); d < 0 || d > time.Second {
			t.Errorf("entry %q expires at %s, want %s or less than a second before", e.Key, got.Expires, e.Expires)
		}
	}
	if _, err := s.Get(t.Context(), "t/never"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get of a key that was never written = %v, want ErrNotFound", err)
	}
}

func valuesAreNotShared(t *testing.T, s store.Store) {
	value := []byte("before")
	mustPut(t, s, store.Entry{Key: "k", Value: value})
	copy(value, "AFTER!")
	first, err := s.Get(t.Context(), "k")
	if err != nil || string(first.Value) != "before" {
		t.Fatalf("after the caller changed its slice, Get = %q, %v", first.Value, err)
	}
	copy(first.Value, "AFTER!")
	second, err := s.Get(t.Context(), "k")
	if err != nil || string(second.Value) != "before" {
		t.Fatalf("after a reader changed its slice, Get = %q, %v", second.Value, err)
	}
}

func limitsAreEnforced(t *testing.T, s store.Store) {
	ctx := t.Context()
	for name, key := range map[string]string{
		"empty":     "",
		"too long":  strings.Repeat("k", store.MaxKeyBytes+1),
		"space":     "a b",
		"newline":   "a\nb",
		"zero byte": "a\x00b",
		"delete":    "a\x7f",
		"not ascii": "ledger/ä",
		"not utf-8": "a\xff",
	} {
		if _, err := s.Put(ctx, store.Entry{Key: key}); err == nil {
			t.Errorf("%s: Put took key %q", name, key)
		}
		if _, err := s.Get(ctx, key); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: Get(%q) = %v, want an error of its own", name, key, err)
		}
		if err := s.Delete(ctx, store.Entry{Key: key, Revision: 1}); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: Delete(%q) = %v, want an error of its own", name, key, err)
		}
		if key == "" {
			continue // the empty prefix is that of every key
		}
		if got, err := list(ctx, s, key); err == nil {
			t.Errorf("%s: List(%q) yielded %d entries and no error", name, key, len(got))
		}
	}
	largest := store.Entry{Key: strings.Repeat("k", store.MaxKeyBytes), Value: make([]byte, store.MaxValueBytes)}
	requireSame(t, mustGet(t, s, mustPut(t, s, largest).Key), mustGet(t, s, largest.Key))
	if got := mustGet(t, s, largest.Key); !bytes.Equal(got.Value, largest.Value) {
		t.Errorf("the largest value came back with %d bytes", len(got.Value))
	}
	if _, err := s.Put(ctx, store.Entry{Key: "k", Value: make([]byte, store.MaxValueBytes+1)}); err == nil {
		t.Error("Put took a value above MaxValueBytes")
	}
}

func putSwapsOnlyCurrentRevision(t *testing.T, s store.Store) {
	ctx := t.Context()
	if _, err := s.Put(ctx, store.Entry{Key: "k", Revision: 7}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Put with a revision over nothing = %v, want ErrConflict", err)
	}
	first := mustPut(t, s, store.Entry{Key: "k", Value: []byte("1")})
	second := mustPut(t, s, store.Entry{Key: "k", Value: []byte("2"), Revision: first.Revision})
	if second.Revision <= first.Revision {
		t.Errorf("revision went from %d to %d", first.Revision, second.Revision)
	}
	for _, stale := range []uint64{0, first.Revision, second.Revision + 1} {
		if _, err := s.Put(ctx, store.Entry{Key: "k", Value: []byte("3"), Revision: stale}); !errors.Is(err, store.ErrConflict) {
			t.Errorf("Put at revision %d of %d = %v, want ErrConflict", stale, second.Revision, err)
		}
	}
	requireSame(t, mustGet(t, s, "k"), second)
}

func deleteRemovesOnlyCurrentRevision(t *testing.T, s store.Store) {
	ctx := t.Context()
	first := mustPut(t, s, store.Entry{Key: "k", Value: []byte("1")})
	second := mustPut(t, s, store.Entry{Key: "k", Value: []byte("2"), Revision: first.Revision})
	for _, stale := range []uint64{0, first.Revision, second.Revision + 1} {
		if err := s.Delete(ctx, store.Entry{Key: "k", Revision: stale}); !errors.Is(err, store.ErrConflict) {
			t.Errorf("Delete at revision %d of %d = %v, want ErrConflict", stale, second.Revision, err)
		}
	}
	if err := s.Delete(ctx, second); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if err := s.Delete(ctx, second); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("second Delete = %v, want ErrNotFound", err)
	}
	if _, err := s.Get(ctx, "k"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get after Delete = %v, want ErrNotFound", err)
	}
	if _, err := s.Put(ctx, second); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Put at the revision of a deleted entry = %v, want ErrConflict", err)
	}
}

func revisionsRiseAcrossDeletion(t *testing.T, s store.Store) {
	last := uint64(0)
	for range 5 {
		e := mustPut(t, s, store.Entry{Key: "k"})
		if e.Revision <= last {
			t.Fatalf("revision %d follows %d", e.Revision, last)
		}
		last = e.Revision
		if err := s.Delete(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

func listYieldsPrefixInOrder(t *testing.T, s store.Store) {
	const many = 700 // more than one page of any driver
	var want []string
	for i := range many {
		want = append(want, fmt.Sprintf("list/%04d", i))
	}
	others := []string{"list", "list.", "list0", "lisu/0000", "a/list/", "~"}
	putAll(t, s, append(want, others...))
	entries, err := list(t.Context(), s, "list/")
	if err != nil {
		t.Fatal(err)
	}
	requireKeys(t, entries, want)
	for _, e := range entries[:10] {
		requireSame(t, e, mustGet(t, s, e.Key))
	}
	all, err := list(t.Context(), s, "")
	if err != nil || len(all) != many+len(others) {
		t.Errorf("List of everything = %d entries, %v; want %d", len(all), err, many+len(others))
	}
	exact, err := list(t.Context(), s, "list/0007")
	if err != nil || len(exact) != 1 {
		t.Errorf("List of a whole key = %d entries, %v; want 1", len(exact), err)
	}
	for e, err := range s.List(t.Context(), "list/") { // leaving early is fine
		if err != nil || e.Key != want[0] {
			t.Errorf("first entry = %q, %v", e.Key, err)
		}
		break
	}
}

// A driver that held a lock or a transaction while the consumer works would
// deadlock here: the consumer writes.
func listLetsWritersWork(t *testing.T, s store.Store) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var keys []string
	for i := range 300 {
		keys = append(keys, fmt.Sprintf("list/%04d", i))
	}
	putAll(t, s, keys)
	seen := 0
	for e, err := range s.List(ctx, "list/") {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if seen%50 == 0 {
			if err := s.Delete(ctx, e); err != nil {
				t.Fatalf("Delete during List: %v", err)
			}
			if _, err := s.Put(ctx, store.Entry{Key: "other/" + e.Key}); err != nil {
				t.Fatalf("Put during List: %v", err)
			}
		}
	}
	if seen != len(keys) {
		t.Errorf("List yielded %d entries, want %d", seen, len(keys))
	}
}

func endedContextChangesNothing(t *testing.T, s store.Store) {
	e := mustPut(t, s, store.Entry{Key: "k", Value: []byte("1")})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(over, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("Get = %v, want context.Canceled", err)
	}
	if _, err := s.Put(over, store.Entry{Key: "k", Revision: e.Revision}); !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v, want context.Canceled", err)
	}
	if err := s.Delete(over, e); !errors.Is(err, context.Canceled) {
		t.Errorf("Delete = %v, want context.Canceled", err)
	}
	if _, err := list(over, s, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("List = %v, want context.Canceled", err)
	}
	requireSame(t, mustGet(t, s, "k"), e)
}

func closedStoreRefuses(t *testing.T, s store.Store) {
	e := mustPut(t, s, store.Entry{Key: "k"})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	if _, err := s.Get(t.Context(), "k"); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Get = %v, want ErrClosed", err)
	}
	if _, err := s.Put(t.Context(), store.Entry{Key: "k2"}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Put = %v, want ErrClosed", err)
	}
	if err := s.Delete(t.Context(), e); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Delete = %v, want ErrClosed", err)
	}
	if _, err := list(t.Context(), s, ""); !errors.Is(err, store.ErrClosed) {
		t.Errorf("List = %v, want ErrClosed", err)
	}
}
