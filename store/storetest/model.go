package storetest

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"sallyport/store"
)

// Model makes random calls and compares each answer with that of a map. It
// removes what s holds first, so one store serves many runs. If wait is not nil
// it lets the given time pass for s and for time.Now, and entries expire in
// between; else they are either written expired or do not expire during the run.
func Model(t *rapid.T, s store.Store, wait func(time.Duration)) {
	m := &model{s: s, live: map[string]store.Entry{}, newest: map[string]uint64{}, ttls: []time.Duration{0, -time.Minute, time.Hour}}
	m.clear(t)
	actions := map[string]func(*rapid.T){
		"put":    m.put,
		"delete": m.delete,
		"get":    m.get,
		"list":   m.list,
		"":       m.invariants,
	}
	if wait != nil {
		m.ttls = append(m.ttls, 10*time.Second, time.Minute)
		actions["wait"] = func(t *rapid.T) {
			wait(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
			m.expire()
		}
	}
	t.Repeat(actions)
}

type model struct {
	s      store.Store
	live   map[string]store.Entry
	newest map[string]uint64 // the highest revision that a key ever had
	ttls   []time.Duration   // lifetimes to draw from; 0 is no expiry
}

func (m *model) clear(t *rapid.T) {
	for e, err := range m.s.List(t.Context(), "") {
		if err == nil {
			err = m.s.Delete(t.Context(), e)
		}
		if err != nil {
			t.Fatalf("clear the store: %v", err)
		}
	}
}

// The keys nest and share prefixes, so that List has something to get wrong.
func drawKey(t *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "a/", "a/1", "a/1/x", "a/10", "a/2", "b", "b/1"}).Draw(t, "key")
}

// drawRevision is mostly the current one, at times an old, a future or none.
func (m *model) drawRevision(t *rapid.T, key string) uint64 {
	current := m.live[key].Revision
	return rapid.OneOf(
		rapid.Just(current),
		rapid.SampledFrom([]uint64{current, 0, m.newest[key], m.newest[key] + 1}),
	).Draw(t, "revision")
}

func (m *model) put(t *rapid.T) {
	key := drawKey(t)
	e := store.Entry{
		Key:      key,
		Value:    rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "value"),
		Revision: m.drawRevision(t, key),
	}
	if ttl := rapid.SampledFrom(m.ttls).Draw(t, "ttl"); ttl != 0 {
		e.Expires = time.Now().Add(ttl).Truncate(time.Second)
	}
	got, err := m.s.Put(t.Context(), e)
	if e.Revision != m.live[key].Revision {
		if !errors.Is(err, store.ErrConflict) {
			t.Fatalf("Put(%q) at revision %d of %d = %v, want ErrConflict", key, e.Revision, m.live[key].Revision, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
	if got.Revision <= m.newest[key] {
		t.Fatalf("Put(%q) gave revision %d after %d", key, got.Revision, m.newest[key])
	}
	m.newest[key] = got.Revision
	e.Revision = got.Revision
	m.live[key] = e
	m.expire()
}

func (m *model) delete(t *rapid.T) {
	key := drawKey(t)
	current, exists := m.live[key]
	e := store.Entry{Key: key, Revision: m.drawRevision(t, key)}
	err := m.s.Delete(t.Context(), e)
	switch {
	case !exists:
		if !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("Delete(%q) of nothing = %v, want ErrNotFound", key, err)
		}
	case e.Revision != current.Revision:
		if !errors.Is(err, store.ErrConflict) {
			t.Fatalf("Delete(%q) at revision %d of %d = %v, want ErrConflict", key, e.Revision, current.Revision, err)
		}
	case err != nil:
		t.Fatalf("Delete(%q): %v", key, err)
	default:
		delete(m.live, key)
	}
}

func (m *model) get(t *rapid.T) {
	key := drawKey(t)
	got, err := m.s.Get(t.Context(), key)
	want, exists := m.live[key]
	if !exists {
		if !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("Get(%q) of nothing = %v, want ErrNotFound", key, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("Get(%q): %v", key, err)
	}
	m.compare(t, got, want)
}

func (m *model) list(t *rapid.T) {
	m.checkList(t, rapid.SampledFrom([]string{"", "a", "a/", "a/1", "a/1/", "b", "c"}).Draw(t, "prefix"))
}

// invariants runs after each action.
func (m *model) invariants(t *rapid.T) { m.checkList(t, "") }

func (m *model) checkList(t *rapid.T, prefix string) {
	var want []string
	for _, key := range slices.Sorted(maps.Keys(m.live)) {
		if strings.HasPrefix(key, prefix) {
			want = append(want, key)
		}
	}
	got, err := list(t.Context(), m.s, prefix)
	if err != nil {
		t.Fatalf("List(%q): %v", prefix, err)
	}
	if !slices.Equal(keys(got), want) {
		t.Fatalf("List(%q) = %q, want %q", prefix, keys(got), want)
	}
	for _, e := range got {
		m.compare(t, e, m.live[e.Key])
	}
}

func (m *model) compare(t *rapid.T, got, want store.Entry) {
	if got.Key != want.Key || got.Revision != want.Revision || !bytes.Equal(got.Value, want.Value) || !got.Expires.Equal(want.Expires) {
		t.Fatalf("entry is %+v, want %+v", got, want)
	}
}

func (m *model) expire() {
	maps.DeleteFunc(m.live, func(_ string, e store.Entry) bool {
		return !e.Expires.IsZero() && !time.Now().Before(e.Expires)
	})
}
