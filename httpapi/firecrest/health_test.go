package firecrest

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTheNewerOfCallsAndProbesShowsHowSSHIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var h health
		ssh := func(probes ...Probe) check {
			t.Helper()
			checks, last := h.snapshot(probes)
			if len(checks) != 1 || last == nil || !last.Equal(checks[0].LastChecked) {
				t.Fatalf("checks %v, last %v", checks, last)
			}
			return checks[0]
		}
		if checks, last := h.snapshot([]Probe{{}}); checks != nil || last != nil {
			t.Errorf("before anything: %v, %v", checks, last)
		}
		up := Probe{At: time.Now(), Answered: true}
		down := Probe{At: time.Now().Add(time.Second)}
		refused := Probe{At: time.Now(), Answered: true, Refused: true}
		if c := ssh(down, up); !c.Healthy || c.Message != nil {
			t.Errorf("one node of two answers: %+v", c)
		}
		if c := ssh(down); c.Healthy || *c.Message != "No login node answers." {
			t.Errorf("none answers: %+v", c)
		}
		// Weakness 54: a broken account of the probes says nothing about users.
		if c := ssh(refused); !c.Healthy || c.Message == nil {
			t.Errorf("the account is refused: %+v", c)
		}
		time.Sleep(time.Minute)
		began := time.Now()
		time.Sleep(250 * time.Millisecond)
		h.note("ssh", began, "")
		if c := ssh(down); !c.Healthy || c.Latency != 0.25 {
			t.Errorf("a user's call is newer: %+v", c)
		}
	})
}

// What a scheduler's command says is what the caller's own PATH says.
func TestOnePersonAloneMakesNoServiceLookIll(t *testing.T) {
	t.Parallel()
	var h health
	healthy := func() bool {
		checks, _ := h.snapshot(nil)
		return len(checks) == 1 && checks[0].Healthy
	}
	alice, bob := person{issuer: "a", subject: "1"}, person{issuer: "a", subject: "2"}
	h.note("scheduler", time.Now(), "")
	for range 3 {
		h.complain(alice, time.Now(), "it does not answer")
	}
	if !healthy() {
		t.Error("one person is believed")
	}
	h.complain(bob, time.Now(), "it does not answer")
	if healthy() {
		t.Error("two persons are not believed")
	}
	h.note("scheduler", time.Now(), "")
	h.complain(bob, time.Now(), "it does not answer")
	if !healthy() {
		t.Error("an old complaint counts")
	}
}
