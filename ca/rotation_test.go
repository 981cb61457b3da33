package ca

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/store/audit"
)

// newRing is a world whose nodes have the bundle of the first start.
func newRing(t testing.TB, change ...func(*Config)) (*world, *nodes) {
	t.Helper()
	n := &nodes{bundles: map[string][]byte{"a:22": nil, "b:22": nil}}
	w := newWorld(t, append([]func(*Config){func(c *Config) {
		c.Keys = KeyFolder{Dir: filepath.Join(t.TempDir(), "keys"), Passphrase: []byte("secret")}
		c.Rotation = RotationConfig{Prober: n, ProbeUser: "probe", PullInterval: pullInterval, MaxSkew: time.Second}
	}}, change...)...)
	n.pullAll(w.Authority)
	return w, n
}

// pullInterval is short, because tests that are in no bubble wait for it.
const pullInterval = time.Millisecond

// probeTwice is what an activation needs: two rounds with a pull interval between.
func (w *world) probeTwice(t testing.TB) {
	t.Helper()
	for range 2 {
		if _, err := w.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * pullInterval)
	}
}

func (n *nodes) pullAll(a *Authority) {
	for _, node := range n.Nodes() {
		n.pull(node.Address, a.TrustBundle())
	}
}

func (w *world) must(t testing.TB, act Act) RingStatus {
	t.Helper()
	s, err := w.Act(t.Context(), act)
	if err != nil {
		t.Fatalf("%s: %v", act.Step, err)
	}
	return s
}

func wantRefusal(t testing.TB, err error, reason, remedy string) {
	t.Helper()
	refusal, ok := errors.AsType[*StepError](err)
	if !ok || !strings.Contains(refusal.Reason, reason) || !strings.Contains(refusal.Remedy, remedy) {
		t.Errorf("got %v, want a refusal because %q with remedy %q", err, reason, remedy)
	}
}

func TestAnUnsafeStepIsRefusedWithReasonAndRemedy(t *testing.T) {
	t.Parallel()
	w, n := newRing(t)
	act := func(step string) error {
		_, err := w.Act(t.Context(), Act{Step: step})
		return err
	}
	wantRefusal(t, act(StepPublish), "no key is staged", "ca status")
	wantRefusal(t, act(StepRetire), "no key is retiring", "ca status")
	wantRefusal(t, act(StepRollback), "no key is retiring", "ca status")
	wantRefusal(t, act(StepCompromise), "not done without a reason", "--reason")
	wantRefusal(t, act("destroy"), `no step "destroy"`, "--help")
	w.must(t, Act{Step: StepStage})
	wantRefusal(t, act(StepStage), "is staged", "abandon")
	wantRefusal(t, act(StepActivate), "no key is pending", "ca status")
	w.must(t, Act{Step: StepPublish})
	wantRefusal(t, act(StepActivate), "a:22 (not asked since the bundle changed), b:22 (not asked", "ca probe")
	n.pull("a:22", w.TrustBundle())
	if _, err := w.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, act(StepActivate), "b:22 (refused)", "--except")
	_, err := w.Act(t.Context(), Act{Step: StepActivate, Except: []string{"b:22"}})
	wantRefusal(t, err, "not done without a reason", "--reason")
	_, err = w.Act(t.Context(), Act{Step: StepActivate, Except: []string{"c"}, Actor: Actor{Reason: "broken"}})
	wantRefusal(t, err, `no node "c"`, "ca status")
	w.probeTwice(t)
	w.must(t, Act{Step: StepActivate, Except: []string{"b"}, Actor: Actor{UID: 7, Reason: "b is in maintenance"}})
	wantRefusal(t, act(StepRetire), "may be valid until then", "wait until")

	events := w.events(t, audit.AdminAct)
	last := events[len(events)-1]
	for key, want := range map[string]string{
		"sallyport.act": "ca.activate", "sallyport.uid": "7", "sallyport.act_reason": "b is in maintenance", "sallyport.except": "b",
		"sallyport.from": "pending", "sallyport.to": "active", "event.outcome": "success",
	} {
		if last[key] != want {
			t.Errorf("audit record has %s %q, want %q", key, last[key], want)
		}
	}
}

func TestADryRunChangesNothing(t *testing.T) {
	t.Parallel()
	w, _ := newRing(t)
	w.must(t, Act{Step: StepStage})
	events := len(w.events(t, audit.AdminAct))
	s := w.must(t, Act{Step: StepPublish, DryRun: true})
	if s.Version != 2 || s.Keys[1].State != KeyPending {
		t.Errorf("the dry run shows %+v", s)
	}
	if w.BundleVersion() != 1 || w.Keys()[1].State != KeyStaged || len(w.events(t, audit.AdminAct)) != events {
		t.Error("the dry run changed something")
	}
}

func TestARotationDestroysTheFormerKeyAndSurvivesRestarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		initial := filepath.Join(dir, "ca_key")
		w, n := newRing(t, func(c *Config) {
			keys := c.Keys.(KeyFolder)
			keys.Initial = initial
			c.Keys = keys
		})
		if err := os.WriteFile(initial, []byte("the private key"), 0o600); err != nil {
			t.Fatal(err)
		}
		first := w.Fingerprint()
		if _, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t), TTL: time.Minute}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err := Rotate(t.Context(), w, RotateOptions{}, func(p Progress) {
			n.pullAll(w.Authority)
			if p.Wait != nil && p.Wait.Step == StepActivate && (p.Wait.At.IsZero() || !strings.Contains(p.Wait.Reason, "a:22 (accepted, and asked again after")) {
				t.Errorf("waits for %+v, and not for the second round", p.Wait)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 61*time.Second || took > 80*time.Second {
			t.Errorf("drained for %s; the last certificate was valid for 60 s, skew and pull interval are 1 s", took)
		}
		if _, err := os.Stat(initial); !errors.Is(err, fs.ErrNotExist) || w.Fingerprint() == first {
			t.Errorf("first key is still there (%v) or still active", err)
		}
		second := w.Fingerprint()
		again := w.auth
		again.Key = nil
		a, err := New(again)
		if err != nil {
			t.Fatal(err)
		}
		if a.Fingerprint() != second || len(a.Distrusted()) != 1 {
			t.Errorf("after a restart %s signs, %d keys are distrusted", a.Fingerprint(), len(a.Distrusted()))
		}
		again.Keys = KeyFolder{Dir: again.Keys.(KeyFolder).Dir, Passphrase: []byte("wrong")}
		if _, err := New(again); err == nil || !strings.Contains(err.Error(), "cannot be had") {
			t.Errorf("without the passphrase: %v", err)
		}
	})
}

func TestAKeyIsActivatedAfterTwoRoundsWithAPullIntervalBetween(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n := newRing(t, func(c *Config) { c.Rotation.PullInterval = time.Minute })
		activate := func() error {
			_, err := w.Act(t.Context(), Act{Step: StepActivate})
			return err
		}
		probe := func() {
			if _, err := w.Probe(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		w.must(t, Act{Step: StepStage})
		w.must(t, Act{Step: StepPublish})
		n.pullAll(w.Authority)
		probe()
		wantRefusal(t, activate(), "a:22 (accepted, and asked again after", "ca probe")
		s, err := w.RingStatus(t.Context())
		if err != nil || s.Next.Step != StepActivate || s.Next.Ready || time.Until(s.Next.At) != time.Minute {
			t.Errorf("next step %+v, %v; want it in a minute", s.Next, err)
		}
		time.Sleep(59 * time.Second)
		probe()
		wantRefusal(t, activate(), "asked again after", "ca probe")

		// A node that loses the key in between begins anew.
		text := n.bundles["b:22"]
		n.pull("b:22", nil)
		time.Sleep(time.Second)
		probe()
		wantRefusal(t, activate(), "b:22 (refused)", "ca probe")
		n.pull("b:22", text)
		probe()
		time.Sleep(59 * time.Second)
		wantRefusal(t, activate(), "b:22 (accepted, and asked again after", "ca probe")
		time.Sleep(time.Second)
		probe()
		if err := activate(); err != nil {
			t.Error(err)
		}
	})
}

func TestARollbackMakesTheFormerKeySignAgain(t *testing.T) {
	t.Parallel()
	w, n := newRing(t)
	first := w.Fingerprint()
	w.must(t, Act{Step: StepStage})
	w.must(t, Act{Step: StepPublish})
	n.pullAll(w.Authority)
	w.probeTwice(t)
	w.must(t, Act{Step: StepActivate})
	if w.Fingerprint() == first {
		t.Fatal("the new key does not sign")
	}
	s := w.must(t, Act{Step: StepRollback})
	if w.Fingerprint() != first || s.Keys[1].State != KeyPending {
		t.Errorf("after the rollback %s signs: %+v", w.Fingerprint(), s.Keys)
	}
	// Certificates of the bad key may be out: it must drain before nodes drop it.
	if s = w.must(t, Act{Step: StepAbandon}); s.Keys[1].State != KeyRetiring || !s.Keys[1].Published {
		t.Errorf("the abandoned key is %+v", s.Keys[1])
	}
}

func TestAKeyThatTheRingDoesNotKnowIsRefused(t *testing.T) {
	t.Parallel()
	w, _ := newRing(t)
	cfg := w.auth
	cfg.Key = newTestKey(t, "ed25519")
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "is not in the key ring") {
		t.Errorf("a foreign initial key: %v", err)
	}
}
