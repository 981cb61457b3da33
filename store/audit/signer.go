package audit

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// SignerConfig says how the log is signed.
type SignerConfig struct {
	Log *Log
	// Sign makes the signature of a text, in the armored form of ssh-keygen -Y sign with
	// CheckpointNamespace.
	Sign func(text []byte) ([]byte, error)
	// Interval is the longest time that an event stays unsigned; 0 means 5 minutes.
	Interval time.Duration
	Logger   *slog.Logger
}

// A Signer records checkpoints, each a signature of the hash of the last event: at
// intervals if there is anything new, when a file is full, and at the end.
type Signer struct {
	cfg  SignerConfig
	wake chan struct{}

	mu       sync.Mutex
	signed   Checkpoint
	failures uint64
}

// NewSigner returns a signer whose Run does the work.
func NewSigner(cfg SignerConfig) *Signer {
	if cfg.Interval == 0 {
		cfg.Interval = 5 * time.Minute
	}
	s := &Signer{cfg: cfg, wake: make(chan struct{}, 1)}
	cfg.Log.Notify(s.wake)
	return s
}

// SignerStatus says how far the log is signed.
type SignerStatus struct {
	// Signed is the last checkpoint of this process; zero when there is none yet.
	Signed Checkpoint
	// Unsigned is how many events follow it, or were recorded since the start.
	Unsigned uint64
	Failures uint64
}

// Status says how far the log is signed.
func (s *Signer) Status() SignerStatus {
	end := s.cfg.Log.Mark()
	s.mu.Lock()
	defer s.mu.Unlock()
	return SignerStatus{Signed: s.signed, Unsigned: end.Sequence - min(end.Sequence, s.signed.Sequence), Failures: s.failures}
}

// Run signs until ctx ends, and then once more.
func (s *Signer) Run(ctx context.Context) {
	timer := time.NewTicker(s.cfg.Interval)
	defer timer.Stop()
	file := s.cfg.Log.Mark().File
	for {
		select {
		case <-ctx.Done():
			s.attempt(context.WithoutCancel(ctx))
			return
		case <-timer.C:
		case <-s.wake:
			now := s.cfg.Log.Mark().File
			if now == file {
				continue
			}
			file = now
		}
		s.attempt(ctx)
	}
}

func (s *Signer) attempt(ctx context.Context) {
	if err := s.Now(ctx); err != nil {
		s.mu.Lock()
		s.failures++
		s.mu.Unlock()
		s.cfg.Logger.WarnContext(ctx, "the audit log could not be signed; it is tried again at the next interval", slog.Any("error", err))
	}
}

// Now signs the log as it is, unless nothing but the last checkpoint is new.
func (s *Signer) Now(ctx context.Context) error {
	end := s.cfg.Log.Mark()
	s.mu.Lock()
	last := s.signed.Sequence
	s.mu.Unlock()
	if end.Sequence == 0 || last > 0 && end.Sequence <= last+1 {
		return nil
	}
	c := Checkpoint{Sequence: end.Sequence, Hash: end.Hash, Time: time.Now().UTC().Truncate(time.Second)}
	signature, err := s.cfg.Sign(c.Text())
	if err == nil && len(signature) > MaxLongBytes {
		err = fmt.Errorf("a signature of %d bytes does not fit into a record", len(signature))
	}
	if err != nil {
		return err
	}
	err = s.cfg.Log.Record(ctx, Event{Action: Checkpointed, Outcome: Success, Detail: map[string]string{
		"checkpoint": string(c.Text()), "signature": string(signature),
	}})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signed = c
	return nil
}
