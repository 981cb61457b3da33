package audit

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"time"
)

// remembered is how many hashes back from its record a checkpoint may lie: what is
// recorded while a slow key signs.
const remembered = 1 << 16

// A SignatureCheck says whose signature of a text it is, or that it does not count.
type SignatureCheck func(text, signature []byte) (key string, err error)

// signatures follows a walk and checks its checkpoints, and those that were noted
// elsewhere.
type signatures struct {
	check SignatureCheck // nil: checkpoints are counted only
	known map[uint64]string

	recent  []seen // the last events, by sequence modulo its length
	first   uint64
	count   uint64
	last    Checkpoint
	lastKey string
	waiting time.Time // of the first event behind it, its own record apart; zero: there is none
}

// seen is an event that has passed.
type seen struct {
	hash [hashHex / 2]byte
	at   time.Time
}

// line takes an event that is good. at is its place, and time when it was recorded.
func (s *signatures) line(at position, recorded time.Time, text []byte) error {
	if want, ok := s.known[at.sequence]; ok {
		if want != at.hash {
			return fmt.Errorf("event %d has hash %s, and was noted with %s: the log was rewritten", at.sequence, at.hash, want)
		}
		delete(s.known, at.sequence)
	}
	count := s.count
	if bytes.Contains(text, []byte(checkpointMark)) {
		if err := s.checkpoint(at.sequence, text); err != nil {
			return err
		}
	}
	if s.count == count && s.waiting.IsZero() {
		s.waiting = recorded
	}
	if s.recent == nil {
		s.recent, s.first = make([]seen, remembered), at.sequence
	}
	e := &s.recent[at.sequence%remembered]
	e.at = recorded
	_, err := hex.Decode(e.hash[:], []byte(at.hash))
	return err
}

// checkpoint checks the checkpoint in event number sequence.
func (s *signatures) checkpoint(sequence uint64, text []byte) error {
	r, err := parseCheckpointRecord(text)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	c, err := parseCheckpoint([]byte(r.Text), checkpointWord)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if c.Sequence >= sequence {
		return fmt.Errorf("checkpoint: it names event %d, which is not before it", c.Sequence)
	}
	key := ""
	if s.check != nil {
		if key, err = s.check([]byte(r.Text), []byte(r.Signature)); err != nil {
			return fmt.Errorf("checkpoint of event %d: %w", c.Sequence, err)
		}
	}
	if c.Sequence < s.first || s.recent == nil || sequence-c.Sequence > remembered {
		return nil // it speaks of what was not read, or is too far back to compare
	}
	e := &s.recent[c.Sequence%remembered]
	if hex.EncodeToString(e.hash[:]) != c.Hash {
		return fmt.Errorf("checkpoint: event %d was signed with another hash: the log was rewritten", c.Sequence)
	}
	s.count++
	s.last, s.lastKey, s.waiting = c, key, time.Time{}
	if c.Sequence+1 < sequence {
		s.waiting = s.recent[(c.Sequence+1)%remembered].at
	}
	return nil
}
