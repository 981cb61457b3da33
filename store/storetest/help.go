package storetest

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"

	"sallyport/store"
)

func mustPut(t *testing.T, s store.Store, e store.Entry) store.Entry {
	t.Helper()
	got, err := s.Put(t.Context(), e)
	if err != nil {
		t.Fatalf("Put(%.64q): %v", e.Key, err)
	}
	return got
}

func mustGet(t *testing.T, s store.Store, key string) store.Entry {
	t.Helper()
	e, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("Get(%.64q): %v", key, err)
	}
	return e
}

// putAll writes empty entries, many at a time.
func putAll(t *testing.T, s store.Store, keys []string) {
	t.Helper()
	var wg sync.WaitGroup
	for chunk := range slices.Chunk(keys, 50) {
		for _, key := range chunk {
			wg.Go(func() {
				if _, err := s.Put(t.Context(), store.Entry{Key: key}); err != nil {
					t.Errorf("Put(%q): %v", key, err)
				}
			})
		}
		wg.Wait()
	}
}

func list(ctx context.Context, s store.Store, prefix string) (entries []store.Entry, err error) {
	for e, err := range s.List(ctx, prefix) {
		if err != nil {
			return entries, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func keys(entries []store.Entry) (keys []string) {
	for _, e := range entries {
		keys = append(keys, e.Key)
	}
	return keys
}

func requireKeys(t *testing.T, entries []store.Entry, want []string) {
	t.Helper()
	if got := keys(entries); !slices.Equal(got, want) {
		t.Fatalf("List yielded %d keys %.20q, want %d keys %.20q", len(got), got, len(want), want)
	}
}

func requireSame(t *testing.T, got, want store.Entry) {
	t.Helper()
	if got.Key != want.Key || got.Revision != want.Revision || !bytes.Equal(got.Value, want.Value) || !got.Expires.Equal(want.Expires) {
		t.Fatalf("entry is %+v, want %+v", got, want)
	}
}
