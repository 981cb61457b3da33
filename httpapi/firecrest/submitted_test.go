package firecrest

import (
	"context"
	"crypto/sha256"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor"
	"sallyport/httpapi/firecrest/scheduler"
)

func TestASubmittedJobIsRememberedForAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSubmissions()
		alice, bob := person{"i", "alice"}, person{"i", "bob"}
		s.note(alice, scheduler.Job{ID: "1"})
		time.Sleep(unseen / 2)
		s.note(alice, scheduler.Job{ID: "2"})
		if _, ok := s.find(alice, "1"); !ok || len(s.of(alice)) != 2 || len(s.of(bob)) != 0 {
			t.Errorf("alice has %v, bob %v", s.of(alice), s.of(bob))
		}
		time.Sleep(unseen / 2)
		if jobs := s.of(alice); len(jobs) != 1 || jobs[0].ID != "2" {
			t.Errorf("after a minute: %v", jobs)
		}
		for i := range maxSubmitted + 10 {
			s.note(bob, scheduler.Job{ID: strconv.Itoa(i)})
		}
		if jobs := s.of(bob); len(jobs) != maxOfOne || jobs[len(jobs)-1].ID != strconv.Itoa(maxSubmitted+9) || len(s.of(alice)) != 1 {
			t.Errorf("%d of bob's are remembered, and of alice's %v", len(jobs), s.of(alice))
		}
		for i := range maxSubmitted + 10 {
			s.note(person{"i", strconv.Itoa(i)}, scheduler.Job{ID: "1"})
		}
		if s.jobs.Len() > maxSubmitted {
			t.Errorf("%d are remembered", s.jobs.Len())
		}
		carol, long := person{"i", "carol"}, strings.Repeat("n", maxNoted+1)
		s.note(carol, scheduler.Job{ID: "1", Name: long})
		s.note(carol, scheduler.Job{ID: "2", Account: &long})
		if jobs := s.of(carol); len(jobs) != 0 {
			t.Errorf("%d jobs with huge texts are remembered", len(jobs))
		}
	})
}

func TestAnAttemptIsMadeOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSubmissions()
		made := 0
		a := attempt{person: person{"i", "alice"}, key: [32]byte{1}}
		once := func(err error) (string, error) {
			return s.once(t.Context(), a, func() (string, error) {
				time.Sleep(time.Second)
				made++
				return strconv.Itoa(made), err
			})
		}
		// What surely led to no job may be tried again.
		if _, err := once(&scheduler.Error{}); err == nil {
			t.Error("no error")
		}
		ids := make(chan string, 3)
		for range 3 {
			go func() {
				id, _ := once(nil)
				ids <- id
			}()
		}
		for range 3 {
			if id := <-ids; id != "2" {
				t.Errorf("id %s", id)
			}
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		if _, err := s.once(gone, a, nil); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("what is known needs no waiting: %v", err)
		}
		time.Sleep(attemptsKept)
		if id, _ := once(executor.ErrOutcomeUnknown); id != "3" {
			t.Errorf("after ten minutes: %s", id)
		}
		// What may have led to a job is not tried again.
		if _, err := once(nil); !errors.Is(err, executor.ErrOutcomeUnknown) {
			t.Errorf("got %v", err)
		}
		var nameless attempt
		for want := range 2 {
			n := 0
			if id, _ := s.once(t.Context(), nameless, func() (string, error) { n++; return strconv.Itoa(n), nil }); id != "1" {
				t.Errorf("without a key, call %d: %s", want, id)
			}
		}
	})
}

func TestManyAttemptsOfOnePersonAreAtHisOwnExpense(t *testing.T) {
	t.Parallel()
	s := newSubmissions()
	alice := attempt{person: person{"i", "alice"}, key: [32]byte{1}}
	submit := func() (string, error) { return "7", nil }
	if _, err := s.once(t.Context(), alice, submit); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxSubmitted / 2 {
		mallory := attempt{person: person{"i", "mallory"}, key: sha256.Sum256([]byte(strconv.Itoa(i)))}
		if _, err := s.once(t.Context(), mallory, submit); err != nil {
			t.Fatal(err)
		}
	}
	_, kept := s.attempts.Get(alice, time.Now())
	if s.attempts.Len() > maxOfOne+1 || len(s.running) > 0 || !kept {
		t.Errorf("%d attempts are remembered, alice's among them: %v", s.attempts.Len(), kept)
	}
}
