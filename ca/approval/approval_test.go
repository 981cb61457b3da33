package approval

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/store/audit"
	"sallyport/store/bolt"
)

type records struct {
	mu   sync.Mutex
	acts []string
}

func (r *records) Record(_ context.Context, e audit.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acts = append(r.acts, e.Detail["act"])
	return nil
}

func open(t *testing.T, log audit.Recorder, acts ...string) *Gate {
	t.Helper()
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "db")})
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	g, err := New(Config{Store: db, Audit: log, Acts: acts})
	must(t, err)
	return g
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func held(t *testing.T, err error) Proposal {
	t.Helper()
	h, ok := errors.AsType[*HeldError](err)
	if !ok {
		t.Fatalf("got %v, want an act that is held", err)
	}
	return h.Proposal
}

var (
	root  = Person{UID: 0}                                     //nolint:gochecknoglobals // constants
	other = Person{UID: 998}                                   //nolint:gochecknoglobals // constants
	anna  = Person{UID: -1, Issuer: "https://a", Subject: "1"} //nolint:gochecknoglobals // constants
)

func compromise(key string) Request {
	return Request{Acts: []string{Compromise}, Text: "compromise of " + key, Key: key, By: root}
}

func TestAnActIsDoneOnceAfterAnotherPersonApproved(t *testing.T) {
	var log records
	g, ctx := open(t, &log, Compromise), t.Context()
	p := held(t, g.Pass(ctx, compromise("a")))
	if again := held(t, g.Pass(ctx, compromise("a"))); again.ID != p.ID {
		t.Errorf("the same act got %s, then %s", p.ID, again.ID)
	}
	if _, err := g.Approve(ctx, root, p.ID); !errors.Is(err, ErrSamePerson) {
		t.Errorf("its proposer approved it: %v", err)
	}
	_, err := g.Approve(ctx, other, p.ID)
	must(t, err)
	held(t, g.Pass(ctx, compromise("b"))) // the approval is not for another key
	must(t, g.Pass(ctx, compromise("a")))
	held(t, g.Pass(ctx, compromise("a"))) // it was used up
	want := []string{"approval.propose", "approval.approve", "approval.propose", "approval.use", "approval.propose"}
	for i, act := range want {
		if i >= len(log.acts) || log.acts[i] != act {
			t.Fatalf("on record are %v, want %v", log.acts, want)
		}
	}
}

func TestWhatIsNotHeldPasses(t *testing.T) {
	g := open(t, &records{}, Except)
	must(t, g.Pass(t.Context(), compromise("a")))
	held(t, g.Pass(t.Context(), Request{Acts: []string{Activate, Except}, Key: "a", By: root}))
}

func TestPeopleAreToldApart(t *testing.T) {
	for _, c := range []struct {
		proposer, approver Person
		ok                 bool
	}{
		{root, root, false},
		{root, other, true},
		{root, anna, true},
		{anna, anna, false},
		{anna, Person{Issuer: "https://a", Subject: "2"}, true},
		{anna, Person{Issuer: "https://b", Subject: "1"}, true},
		{anna, Person{UID: 7, Issuer: "https://a", Subject: "1", Login: "other"}, false},
	} {
		g := open(t, &records{}, Compromise)
		r := compromise("a")
		r.By = c.proposer
		p := held(t, g.Pass(t.Context(), r))
		if _, err := g.Approve(t.Context(), c.approver, p.ID); (err == nil) != c.ok {
			t.Errorf("%v approved what %v proposed: %v", c.approver, c.proposer, err)
		}
	}
}

func TestProposalsEndAndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ctx := open(t, &records{}, Compromise), t.Context()
		p := held(t, g.Pass(ctx, compromise("a")))
		_, err := g.Approve(ctx, other, p.ID)
		must(t, err)
		time.Sleep(DefaultWithin + time.Second)
		held(t, g.Pass(ctx, compromise("a"))) // the approval is over, and this is a new proposal
		if _, err := g.Approve(ctx, other, "0000000000000000"); !errors.Is(err, ErrUnknown) {
			t.Errorf("got %v", err)
		}
		var full error
		for i := range 2 * maxStanding {
			if full = g.Pass(ctx, compromise(string(rune('b'+i)))); !errors.Is(full, ErrHeld) {
				break
			}
		}
		if !errors.Is(full, ErrFull) {
			t.Errorf("after %d proposals: %v", 2*maxStanding, full)
		}
		list, err := g.List(ctx)
		must(t, err)
		if len(list) != maxStanding {
			t.Errorf("%d proposals stand, want %d", len(list), maxStanding)
		}
	})
}

func TestRejectedAndDamagedNames(t *testing.T) {
	g, ctx := open(t, &records{}, Compromise), t.Context()
	p := held(t, g.Pass(ctx, compromise("a")))
	_, err := g.Approve(ctx, other, p.ID)
	must(t, err)
	_, err = g.Reject(ctx, root, p.ID)
	must(t, err)
	held(t, g.Pass(ctx, compromise("a")))
	for _, id := range []string{"", "x", "../ledger/1", p.ID + "0", p.Digest} {
		if _, err := g.Approve(ctx, other, id); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: got %v", id, err)
		}
	}
}

// TestARestoreWaits: whoever starts next decides by their configuration, and a hold stays
// until somebody else approves, however long that takes.
func TestARestoreWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ctx := open(t, &records{}, Restore), t.Context()
		r := Request{Acts: []string{Restore}, Text: "restore", Key: "backup", By: root}
		held(t, g.Hold(ctx, r))
		time.Sleep(48 * time.Hour)
		p := held(t, g.Release(ctx))
		if _, err := g.Approve(ctx, root, p.ID); !errors.Is(err, ErrSamePerson) {
			t.Errorf("got %v", err)
		}
		_, err := g.Approve(ctx, other, p.ID)
		must(t, err)
		must(t, g.Release(ctx))
		must(t, g.Release(ctx)) // and for good
	})
}

func TestAChangeOfWhatIsHeldIsOnRecord(t *testing.T) {
	var log records
	g := open(t, &log, Restore, Compromise)
	must(t, g.Announce(t.Context()))
	must(t, g.Announce(t.Context()))
	g.acts = nil
	must(t, g.Announce(t.Context()))
	if len(log.acts) != 2 || log.acts[1] != "approval.acts" {
		t.Errorf("on record are %v", log.acts)
	}
}

func TestAnApprovalEndsWithItsApproversAccess(t *testing.T) {
	g, ctx := open(t, &records{}, Compromise), t.Context()
	p := held(t, g.Pass(ctx, compromise("a")))
	_, err := g.Approve(ctx, anna, p.ID)
	must(t, err)
	g.refused = func(by Person) bool { return by.Subject == anna.Subject }
	if again := held(t, g.Pass(ctx, compromise("a"))); again.ApprovedBy != nil {
		t.Errorf("still approved by %v", again.ApprovedBy)
	}
	_, err = g.Approve(ctx, other, p.ID)
	must(t, err)
	must(t, g.Pass(ctx, compromise("a")))
}

func TestAnotherReasonIsAnotherAct(t *testing.T) {
	g, ctx := open(t, &records{}, Compromise), t.Context()
	p := held(t, g.Pass(ctx, compromise("a")))
	_, err := g.Approve(ctx, other, p.ID)
	must(t, err)
	r := compromise("a")
	r.Reason = "one that nobody has seen"
	held(t, g.Pass(ctx, r))
}

// TestOneOfManyIsQuicker: whoever comes too late is told so, and the act is done once.
func TestOneOfManyIsQuicker(t *testing.T) {
	g, ctx := open(t, &records{}, Compromise), t.Context()
	p := held(t, g.Pass(ctx, compromise("a")))
	const many = 16
	together := func(do func(i int) error) (good int) {
		errs := make([]error, many)
		var wait sync.WaitGroup
		for i := range many {
			wait.Go(func() { errs[i] = do(i) })
		}
		wait.Wait()
		for _, err := range errs {
			if err == nil {
				good++
			} else if !errors.Is(err, ErrDecided) && !errors.Is(err, ErrHeld) {
				t.Errorf("got %v", err)
			}
		}
		return good
	}
	if n := together(func(i int) error {
		_, err := g.Approve(ctx, Person{UID: 100 + i}, p.ID)
		return err
	}); n != 1 {
		t.Errorf("%d approved", n)
	}
	if n := together(func(int) error { return g.Pass(ctx, compromise("a")) }); n != 1 {
		t.Errorf("the act was let through %d times", n)
	}
}
