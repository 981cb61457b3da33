package identity

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWhatIsForgottenOfAPersonIsRefused(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	r := newReplays(8, 1000, now)
	alice, bob := person{"i", "alice"}, person{"i", "bob"}
	take := func(who person, name string, issued time.Time) error {
		return r.take(who, name, issued, issued.Add(90*time.Second), now)
	}
	if err := take(bob, "b", now); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		now = now.Add(time.Second)
		if err := take(alice, fmt.Sprint(i), now); err != nil {
			t.Fatalf("a new proof, number %d: %v", i, err)
		}
		if len(r.people[alice].order) > 8 {
			t.Fatalf("%d proofs are remembered of one person", len(r.people[alice].order))
		}
	}
	start := now.Add(-99 * time.Second)
	for i := range 100 { // each is used, whether it is remembered or not
		if err := take(alice, fmt.Sprint(i), start.Add(time.Duration(i)*time.Second)); !errors.Is(err, ErrProof) {
			t.Errorf("proof %d a second time: %v", i, err)
		}
	}
	if err := take(alice, "late", start); !errors.Is(err, ErrProof) {
		t.Errorf("a proof of a time of which nothing is remembered: %v", err)
	}
	if err := take(bob, "b2", start); err != nil {
		t.Errorf("bob pays for alice: %v", err)
	}
}

// Whatever people do, memory is bounded, nobody's proof is taken twice, and who sends a
// fresh one a second later is served.
func TestTheMemoryOfProofsIsBounded(t *testing.T) {
	t.Parallel()
	const each, all, life = 6, 20, 30 * time.Second
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_700_000_000, 0)
		r := newReplays(each, all, now)
		taken := map[string]bool{}
		proofs := []struct {
			who    person
			name   string
			issued time.Time
		}{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			who := person{"i", fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "who"))}
			issued := now.Add(time.Duration(rapid.IntRange(-25, 5).Draw(t, "skew")) * time.Second)
			name := fmt.Sprint(len(proofs))
			if len(proofs) > 0 && rapid.Bool().Draw(t, "again") {
				old := proofs[rapid.IntRange(0, len(proofs)-1).Draw(t, "which")]
				who, name, issued = old.who, old.name, old.issued
			}
			key := who.subject + " " + name
			if now.After(issued.Add(life)) {
				continue // the checker of times has refused it
			}
			if err := r.take(who, name, issued, issued.Add(life), now); err == nil {
				if taken[key] {
					t.Fatalf("proof %s was taken twice", key)
				}
				taken[key] = true
				proofs = append(proofs, struct {
					who    person
					name   string
					issued time.Time
				}{who, name, issued})
			}
			held := 0
			for _, u := range r.people {
				held += len(u.order)
				if len(u.order) > each || len(u.order) != len(u.seen) {
					t.Fatalf("%d proofs of one person, %d names", len(u.order), len(u.seen))
				}
			}
			if held > all || held != r.held {
				t.Fatalf("%d proofs in all, %d counted", held, r.held)
			}
		}
		now = now.Add(6 * time.Second) // past what anybody dated into the future
		for i := range 10 {
			if err := r.take(person{"i", fmt.Sprint(i)}, "fresh", now, now.Add(life), now); err != nil {
				t.Fatalf("a fresh proof of %d: %v", i, err)
			}
		}
		now = now.Add(time.Hour)
		_ = r.take(person{"i", "last"}, "last", now, now.Add(life), now)
		if len(r.people) != 1 || r.held != 1 {
			t.Fatalf("an hour later %d people and %d proofs are remembered", len(r.people), r.held)
		}
	})
}
