// Package fair shares what is scarce among people: a [Table] has room for so many entries
// of one person and so many in all, and [Buckets] let each person spend so much in a time.
// Who wants more than their part pays for it themselves: their own oldest entry goes, or
// their own act waits. Nobody else's does.
//
// Nothing here is linear in what accumulates, but where a method says so.
package fair

import (
	"container/list"
	"iter"
	"time"
)

// A Table keeps values of people by keys, each until its time. P names a person, K an
// entry; two people cannot have one key.
//
// Guarantee: no more than Each entries of one person and Most in all are kept, however
// they come. An entry that is over is never found, and makes room first. Of what is
// good, the person who adds beyond Each loses their own oldest; and when the table is
// full, whoever has most entries loses their oldest, which is the one who adds if nobody has more.
//
// The zero Table with its two limits set is ready. Its owner guards it.
type Table[P, K comparable, V any] struct {
	Most, Each int

	entries map[K]*entry[P, K, V]
	people  map[P]*list.List // of *entry, the oldest first
	all     *list.List       // of *entry, the oldest first
	levels  []map[P]struct{} // who has so many entries; the last is not empty
}

type entry[P, K comparable, V any] struct {
	person   P
	key      K
	value    V
	until    time.Time
	own, all *list.Element
}

// Put keeps a value until a time, as the newest of its person.
func (t *Table[P, K, V]) Put(p P, k K, v V, now, until time.Time) {
	if t.entries == nil {
		t.entries, t.people, t.all = make(map[K]*entry[P, K, V]), make(map[P]*list.List), list.New()
	}
	t.Delete(k)
	if min(t.Most, t.Each) < 1 || !now.Before(until) {
		return
	}
	t.makeRoom(p, now)
	own := t.people[p]
	if own == nil {
		own = list.New()
		t.people[p] = own
	}
	e := &entry[P, K, V]{person: p, key: k, value: v, until: until}
	e.own, e.all = own.PushBack(e), t.all.PushBack(e)
	t.entries[k] = e
	t.level(p, own.Len()-1, own.Len())
}

// makeRoom makes room for one more entry of p.
func (t *Table[P, K, V]) makeRoom(p P, now time.Time) {
	for first := t.all.Front(); first != nil && t.over(first, now); first = t.all.Front() {
		t.remove(of[P, K, V](first))
	}
	own := t.people[p]
	if own != nil && own.Len() >= t.Each {
		t.remove(of[P, K, V](own.Front()))
		own = t.people[p]
	}
	if len(t.entries) < t.Most {
		return
	}
	if own == nil || own.Len() < len(t.levels)-1 {
		for richest := range t.levels[len(t.levels)-1] {
			own = t.people[richest]
			break
		}
	}
	t.remove(of[P, K, V](own.Front()))
}

func of[P, K comparable, V any](e *list.Element) *entry[P, K, V] {
	return e.Value.(*entry[P, K, V]) //nolint:forcetypeassert // the lists hold nothing else
}

func (t *Table[P, K, V]) over(e *list.Element, now time.Time) bool {
	return !now.Before(of[P, K, V](e).until)
}

// Get returns the value of a key that is not over.
func (t *Table[P, K, V]) Get(k K, now time.Time) (v V, ok bool) {
	e := t.entries[k]
	if e == nil || !now.Before(e.until) {
		return v, false
	}
	return e.value, true
}

// Of yields what a person has, the oldest first. It is linear in that, and the table must
// not be changed meanwhile.
func (t *Table[P, K, V]) Of(p P, now time.Time) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		own := t.people[p]
		if own == nil {
			return
		}
		for el := own.Front(); el != nil; el = el.Next() {
			if e := of[P, K, V](el); now.Before(e.until) && !yield(e.key, e.value) {
				return
			}
		}
	}
}

// Delete forgets a key.
func (t *Table[P, K, V]) Delete(k K) {
	if e := t.entries[k]; e != nil {
		t.remove(e)
	}
}

// Len is the number of entries, those included that are over and still in memory.
func (t *Table[P, K, V]) Len() int { return len(t.entries) }

func (t *Table[P, K, V]) remove(e *entry[P, K, V]) {
	own := t.people[e.person]
	own.Remove(e.own)
	t.all.Remove(e.all)
	delete(t.entries, e.key)
	t.level(e.person, own.Len()+1, own.Len())
	if own.Len() == 0 {
		delete(t.people, e.person)
	}
}

// level notes that a person has another number of entries.
func (t *Table[P, K, V]) level(p P, from, to int) {
	for len(t.levels) <= max(from, to) {
		t.levels = append(t.levels, make(map[P]struct{}))
	}
	delete(t.levels[from], p)
	if to > 0 {
		t.levels[to][p] = struct{}{}
	}
	for n := len(t.levels); n > 0 && len(t.levels[n-1]) == 0; n-- {
		t.levels = t.levels[:n-1]
	}
}
