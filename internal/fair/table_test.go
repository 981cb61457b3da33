package fair_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/internal/fair"
)

// TestAFloodIsAtItsOwnExpense: however one person fills a table, what others have in it
// stays, and what that person had first goes first.
func TestAFloodIsAtItsOwnExpense(t *testing.T) {
	t.Parallel()
	now := time.Now()
	table := fair.Table[string, int, int]{Most: 100, Each: 80}
	for k := range 30 {
		table.Put("alice", -1-k, k, now, now.Add(time.Hour))
	}
	for k := range 10_000 {
		table.Put("mallory", k, k, now, now.Add(time.Hour))
	}
	for k := range 30 {
		if _, ok := table.Get(-1-k, now); !ok {
			t.Fatalf("alice lost entry %d to mallory's flood", k)
		}
	}
	var left []int
	for k := range table.Of("mallory", now) {
		left = append(left, k)
	}
	if table.Len() != 100 || len(left) != 70 || left[0] != 9930 {
		t.Errorf("%d entries, %d of them mallory's from %d on; want the latest 70 of 100", table.Len(), len(left), left[0])
	}
	table.Put("bob", 20_000, 0, now, now.Add(time.Hour))
	if _, ok := table.Get(9930, now); ok || table.Len() != 100 {
		t.Errorf("somebody else than mallory, who has most, paid for bob's entry")
	}
}

func TestWhatIsOverIsNotFoundAndMakesRoomFirst(t *testing.T) {
	t.Parallel()
	now := time.Now()
	table := fair.Table[string, string, int]{Most: 2, Each: 2}
	table.Put("alice", "a", 1, now, now.Add(time.Minute))
	table.Put("bob", "b", 1, now, now.Add(time.Hour))
	later := now.Add(time.Minute)
	if _, ok := table.Get("a", later); ok {
		t.Error("an entry that is over was found")
	}
	table.Put("bob", "c", 1, later, later.Add(time.Hour))
	if _, ok := table.Get("b", later); !ok {
		t.Error("what is good went before what is over")
	}
	var none fair.Table[string, string, int]
	none.Put("alice", "a", 1, now, now.Add(time.Hour))
	if none.Len() != 0 {
		t.Error("a table without room has an entry")
	}
}

// TestTableHoldsItsBounds compares a table with what a plain list of entries allows.
func TestTableHoldsItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		most, each := rapid.IntRange(1, 12).Draw(t, "most"), rapid.IntRange(1, 6).Draw(t, "each")
		table := fair.Table[int, int, int]{Most: most, Each: each}
		now := time.Now()
		for step := range rapid.IntRange(1, 80).Draw(t, "steps") {
			now = now.Add(time.Second)
			p := rapid.IntRange(0, 3).Draw(t, "person")
			k := p*100 + rapid.IntRange(0, 9).Draw(t, "key")
			if rapid.Bool().Draw(t, "delete") {
				table.Delete(k)
				if _, ok := table.Get(k, now); ok {
					t.Fatal("a deleted key is found")
				}
				continue
			}
			before := slices.Collect(keys(&table, 3-p, now))
			table.Put(p, k, step, now, now.Add(20*time.Second))
			if v, ok := table.Get(k, now); !ok || v != step {
				t.Fatal("what was put is not there")
			}
			total, counts := 0, map[int]int{}
			for who := range 4 {
				for range keys(&table, who, now) {
					counts[who]++
					total++
				}
				if counts[who] > each {
					t.Fatalf("person %d has %d entries, at most %d", who, counts[who], each)
				}
			}
			if table.Len() > most || total > table.Len() {
				t.Fatalf("%d entries, %d found, at most %d", table.Len(), total, most)
			}
			if lost := len(before) - counts[3-p]; lost > 0 && len(before) < counts[p]-1 {
				t.Fatalf("person %d with %d entries paid for person %d with %d", 3-p, len(before), p, counts[p])
			}
		}
	})
}

func keys(table *fair.Table[int, int, int], p int, now time.Time) func(func(int) bool) {
	return func(yield func(int) bool) {
		for k := range table.Of(p, now) {
			if !yield(k) {
				return
			}
		}
	}
}
