package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// CheckpointNamespace is the namespace of signatures of checkpoints (ssh-keygen -Y).
const CheckpointNamespace = "sallyport-audit"

// A Checkpoint says how the log stood at a time. Signed, it fixes every event up to
// Sequence: whoever has not the key cannot make another one.
type Checkpoint struct {
	Sequence uint64
	Hash     string
	Time     time.Time
}

// What a signed text says of the events up to a sequence.
const (
	checkpointWord = "sallyport-audit-checkpoint-v1" // they have this hash
	beginningWord  = "sallyport-audit-beginning-v1"  // they were removed, on purpose
)

// Text is what is signed: one line. It is the content of "sallyport.checkpoint" of a
// record, whose "sallyport.signature" is what ssh-keygen -Y verify takes.
func (c Checkpoint) Text() []byte { return c.text(checkpointWord) }

func (c Checkpoint) text(word string) []byte {
	return fmt.Appendf(nil, "%s %d %s %s\n", word, c.Sequence, c.Hash, c.Time.UTC().Format(time.RFC3339))
}

// ParseCheckpoint reads a checkpoint: its text, or a record of the log that has one, as
// it was shipped.
func ParseCheckpoint(text []byte) (Checkpoint, error) {
	if strings.HasPrefix(string(text), "{") {
		r, err := parseCheckpointRecord(text)
		if err != nil {
			return Checkpoint{}, err
		}
		text = []byte(r.Text)
	}
	return parseCheckpoint(text, checkpointWord)
}

// parseCheckpoint accepts only what text writes, byte for byte.
func parseCheckpoint(text []byte, word string) (Checkpoint, error) {
	bad := fmt.Errorf("%.120q is not of the form %q", text, word+" SEQUENCE HASH TIME")
	fields := strings.Fields(string(text))
	if len(text) > 256 || len(fields) != 4 || len(fields[2]) != hashHex {
		return Checkpoint{}, bad
	}
	sequence, err := strconv.ParseUint(fields[1], 10, 64)
	at, timeErr := time.Parse(time.RFC3339, fields[3])
	c := Checkpoint{Sequence: sequence, Hash: fields[2], Time: at}
	if err != nil || timeErr != nil || strings.TrimSuffix(string(c.text(word)), "\n") != strings.TrimSuffix(string(text), "\n") {
		return Checkpoint{}, bad
	}
	return c, nil
}

// checkpointRecord is the part of a record that is a signed checkpoint.
type checkpointRecord struct {
	Text      string `json:"sallyport.checkpoint"`
	Signature string `json:"sallyport.signature"`
}

func parseCheckpointRecord(line []byte) (r checkpointRecord, err error) {
	if err = json.Unmarshal(line, &r); err == nil && (r.Text == "" || r.Signature == "") {
		err = errors.New("the record is no checkpoint")
	}
	return r, err
}

// checkpointMark stands in records of checkpoints, and in no other: in values quotes are
// escaped.
const checkpointMark = `"event.action":"` + string(Checkpointed) + `"`
