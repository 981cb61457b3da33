package ca

import (
	"context"
	"errors"
	"time"
)

// A Rotator is a key ring that a rotation drives: an [Authority], or one behind
// the admin socket.
type Rotator interface {
	RingStatus(ctx context.Context) (RingStatus, error)
	Act(ctx context.Context, act Act) (RingStatus, error)
	Probe(ctx context.Context) ([]NodeStatus, error)
}

// RotateOptions says how to rotate.
type RotateOptions struct {
	// Resume goes on with a rotation and begins none.
	Resume bool
	// Except and Actor are those of every act; see [Act].
	Except []string
	Actor  Actor
	// Name is a key to rotate to; see [Act].
	Name string
	// AllowFile is consent to a new key in a file; see [Act].
	AllowFile bool
}

// Progress is what a rotation reports: one of a step that was done, nodes that
// were asked, or what it waits for.
type Progress struct {
	Done   string
	Status RingStatus
	Nodes  []NodeStatus
	Wait   *NextStep
}

// maxPoll is how often nodes that do not follow yet are asked again, at most: a
// failed login costs the service's address 5 seconds of penalty (OpenSSH 9.8).
const maxPoll = 15 * time.Second

// Rotate replaces the active key: it finishes what is under way, or begins and
// finishes a rotation. All state is in the ring, so it may be cut off anywhere and
// called again.
func Rotate(ctx context.Context, ring Rotator, opt RotateOptions, report func(Progress)) error {
	begun := opt.Resume
	for {
		s, err := ring.RingStatus(ctx)
		if err != nil {
			return err
		}
		next := s.Next
		switch {
		case next.Step != "" && opt.Name != "" && !begun:
			return refuseStep("finish it with --resume first, or abandon its key", "a rotation to another key is under way: its next step is %s %s", next.Step, next.Key)
		case next.Step == "" && begun:
			return nil
		case next.Step == "":
			next.Step = StepStage
		case !next.At.IsZero():
			report(Progress{Status: s, Wait: &next})
			if err := sleep(ctx, min(time.Until(next.At), maxPoll)); err != nil {
				return err
			}
			continue
		}
		begun = true
		if err := takeStep(ctx, ring, opt, s, next, report); err != nil {
			return err
		}
	}
}

// takeStep does a step; if it lacks proof, the nodes are asked.
func takeStep(ctx context.Context, ring Rotator, opt RotateOptions, s RingStatus, next NextStep, report func(Progress)) error {
	act := Act{Step: next.Step, Key: next.Key, Generation: s.Generation, Except: opt.Except, Actor: opt.Actor}
	if act.Step == StepStage {
		act.Name, act.AllowFile = opt.Name, opt.AllowFile
	}
	after, err := ring.Act(ctx, act)
	if err == nil {
		report(Progress{Done: act.Step, Status: after})
		return nil
	}
	if !errors.Is(err, ErrStep) || next.Step != StepActivate && next.Step != StepRetire {
		return err
	}
	nodes, err := ring.Probe(ctx)
	if err != nil {
		return err
	}
	report(Progress{Status: s, Nodes: nodes})
	after, err = ring.Act(ctx, act)
	if err == nil {
		report(Progress{Done: act.Step, Status: after})
		return nil
	}
	refusal, refused := errors.AsType[*StepError](err)
	if !refused {
		return err
	}
	next.Reason, next.Remedy, next.At = refusal.Reason, refusal.Remedy, refusal.until
	report(Progress{Status: s, Wait: &next})
	return sleep(ctx, min(maxPoll, s.PullInterval))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
