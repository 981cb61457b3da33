package ca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"sallyport/ca/revocation"
	"sallyport/store"
	"sallyport/store/audit"
)

// RotationConfig says how CA keys follow one another.
type RotationConfig struct {
	// Prober asks the nodes; nil means that nothing can be proved about them, and
	// each step that needs proof needs an exception.
	Prober Prober
	// ProbeUser is the account of the probes: without rights, and on every node.
	// Empty means that nodes are not probed.
	ProbeUser string
	// PullInterval is how long a node takes to fetch a new bundle, at most; 0 means
	// 5 minutes.
	PullInterval time.Duration
	// MaxSkew is the most by which a node's clock is wrong; 0 means 1 minute.
	MaxSkew time.Duration
}

func (c RotationConfig) validate() error {
	var errs []error
	if c.PullInterval < 0 || c.MaxSkew < 0 {
		errs = append(errs, fmt.Errorf("rotation: pull interval %s or skew %s is negative", c.PullInterval, c.MaxSkew))
	}
	if c.ProbeUser != "" && !isPrincipal(c.ProbeUser) {
		errs = append(errs, fmt.Errorf("rotation: probe user %q is not an account name, or is root", c.ProbeUser))
	}
	return errors.Join(errs...)
}

func (c RotationConfig) withDefaults() RotationConfig {
	c.PullInterval, c.MaxSkew = orDefault(c.PullInterval, 5*time.Minute), orDefault(c.MaxSkew, time.Minute)
	return c
}

// Actor is who does an administrative act.
type Actor = revocation.Actor

// The steps of a key's life; see [Act].
const (
	StepStage      = "stage"      // make a key
	StepPublish    = "publish"    // put a staged key into the bundle
	StepActivate   = "activate"   // sign with a key that the nodes trust
	StepRetire     = "retire"     // take the former key out of the bundle; done again: destroy it
	StepAbandon    = "abandon"    // give up a key that does not sign
	StepRollback   = "rollback"   // sign with the retiring key again
	StepCompromise = "compromise" // end a key that somebody else may have
)

// An Act is one step that an administrator wants.
type Act struct {
	Step string `json:"step"`
	// Key is a fingerprint or the beginning of one; empty means the only one that
	// the step can be about.
	Key string `json:"key,omitempty"`
	// Name, for StepStage, is a key that exists, such as "agent:/socket#SHA256:…".
	Name string `json:"name,omitempty"`
	// Standby, for StepStage, makes a key for emergencies.
	Standby bool `json:"standby,omitempty"`
	// AllowFile, for StepStage, consents to a key in a file although an ssh-agent
	// has the one that signs. It needs a reason.
	AllowFile bool `json:"allow_file_key,omitempty"`
	// Except are nodes about which nothing need be proved: addresses, their hosts,
	// or "*" for all. It needs a reason.
	Except []string `json:"except,omitempty"`
	// Generation, if not 0, is what the ring must be at: else somebody else was
	// quicker.
	Generation uint64 `json:"generation,omitempty"`
	// DryRun checks everything and changes nothing.
	DryRun bool  `json:"dry_run,omitempty"`
	Actor  Actor `json:"-"`
}

// A change is an act that may be done.
type change struct {
	move  move
	index int // of the key; that of the next one for StepStage
	key   string
}

// Act does one step: everything that speaks against it is checked, the intent is
// recorded, and the ring is replaced if nobody else did so meanwhile. An error that
// is a [*StepError] means that nothing was changed.
func (a *Authority) Act(ctx context.Context, act Act) (RingStatus, error) {
	v, err := a.ring.read(ctx)
	if err != nil {
		return RingStatus{}, fmt.Errorf("%w: key ring: %w", ErrUnavailable, err)
	}
	if act.Generation != 0 && act.Generation != v.Generation {
		return RingStatus{}, errRingChanged
	}
	c, err := a.permit(ctx, v, act)
	if err != nil {
		return RingStatus{}, a.refuseAct(ctx, v, act, err)
	}
	if act.DryRun {
		return a.rehearse(ctx, v, act, c)
	}
	if err := a.approve(ctx, v, act, c); err != nil {
		return RingStatus{}, err
	}
	if act.Step == StepStage {
		if c, err = a.makeKey(act); err != nil {
			return RingStatus{}, err
		}
		c.index = len(v.Keys)
	}
	next, err := v.next(c.move, c.index, time.Now().UTC())
	if err != nil {
		return RingStatus{}, errors.Join(err, a.discard(act, c))
	}
	if err := a.record(ctx, act.event(v, next, c, audit.Unknown, "")); err != nil {
		return RingStatus{}, errors.Join(err, a.discard(act, c))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	if act.Step == StepCompromise {
		// The key ends whether or not it can be asked for later.
		if err := a.bidFarewell(ctx, v, next, c.index); err != nil {
			a.logger.WarnContext(ctx, "a compromised key will not be probed", slog.String("key", c.key), slog.Any("error", err))
		}
	}
	now, err := a.ring.write(ctx, next, v.revision)
	if errors.Is(err, store.ErrConflict) {
		err = errRingChanged
	} else if err != nil {
		err = fmt.Errorf("%w: key ring: %w", ErrUnavailable, err)
	}
	if err != nil {
		return RingStatus{}, errors.Join(err, a.discard(act, c), a.record(ctx, act.event(v, next, c, audit.Failure, err.Error())))
	}
	if err := errors.Join(a.ring.sweep(now), a.record(ctx, act.event(v, next, c, audit.Success, ""))); err != nil {
		return RingStatus{}, err
	}
	return a.statusOf(ctx, now)
}

var errRingChanged = &StepError{Reason: "another administrator changed the key ring meanwhile", Remedy: "look at 'sallyport ca status' and decide anew"}

// rehearse answers with what the ring would be.
func (a *Authority) rehearse(ctx context.Context, v *ringView, act Act, c change) (RingStatus, error) {
	if act.Step == StepStage {
		return a.statusOf(ctx, v)
	}
	next, err := v.next(c.move, c.index, time.Now().UTC())
	if err != nil {
		return RingStatus{}, err
	}
	return a.statusOf(ctx, &ringView{ring: next, revision: v.revision, text: next.bundle(), held: v.held, known: v.known})
}

// makeKey makes or opens the key of StepStage.
func (a *Authority) makeKey(act Act) (change, error) {
	name := act.Name
	load := a.ring.keys.Load
	if name == "" {
		name = "ca_key-" + audit.NewRequestID()
		load = a.ring.keys.Create
	}
	key, err := load(name)
	if err != nil && act.Name != "" {
		return change{}, refuseStep("see that the ssh-agent runs and holds this key, and repeat the step", "the key cannot be used: %v", err)
	}
	if err != nil {
		return change{}, fmt.Errorf("stage key: %w", err)
	}
	k := newRingKey(key.PublicKey(), name, KeyStaged, time.Now().UTC())
	k.Standby = act.Standby
	return change{move: stage(k), key: name}, nil
}

// discard destroys a key that was made for nothing.
func (a *Authority) discard(act Act, c change) error {
	if act.Step != StepStage || act.Name != "" {
		return nil
	}
	return a.ring.keys.Destroy(c.key)
}

// refuseAct records a refusal that somebody asked to overrule with exceptions.
func (a *Authority) refuseAct(ctx context.Context, v *ringView, act Act, reason error) error {
	if act.DryRun || len(act.Except) == 0 {
		return reason
	}
	return errors.Join(reason, a.record(ctx, act.event(v, v.ring, change{index: -1, key: act.Key}, audit.Failure, reason.Error())))
}

// event describes an act on the ring that was, and made next.
func (act Act) event(was *ringView, next ring, c change, outcome audit.Outcome, failure string) audit.Event {
	detail := map[string]string{
		"act": "ca." + act.Step, "uid": strconv.Itoa(act.Actor.UID), "generation": strconv.FormatUint(next.Generation, 10),
		"bundle_version": strconv.FormatUint(next.Version, 10),
	}
	if act.Actor.Reason != "" {
		detail["act_reason"] = clipDetail(act.Actor.Reason)
	}
	if act.AllowFile {
		detail["allow_file_key"] = "true"
	}
	if len(act.Except) > 0 {
		detail["except"] = clipDetail(strings.Join(act.Except, ","))
	}
	if c.index >= 0 && c.index < len(next.Keys) {
		detail["ca_fingerprint"], detail["to"] = next.Keys[c.index].fingerprint(), string(next.Keys[c.index].State)
		if c.index < len(was.Keys) {
			detail["from"] = string(was.Keys[c.index].State)
		}
	}
	return audit.Event{Action: audit.AdminAct, Outcome: outcome, Reason: failure, Detail: detail}
}
