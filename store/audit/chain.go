package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ErrChain is wrapped by every error that says the log is not what was written:
// a line was changed, removed, added or moved, or the end is missing.
var ErrChain = errors.New("audit chain is broken")

// A line is a JSON object that ends with its own hash:
//
//	{"@timestamp":"…","event.sequence":7,…,"sallyport.prev":"HASH OF LINE 6","event.hash":"SHA-256"}
//
// The hash is that of all bytes of the line before `,"event.hash"`, so it covers
// the spelling of the line and not only its meaning, and through sallyport.prev
// every line before it.
const (
	hashMember = `,"event.hash":"`
	lineEnd    = "\"}\n"
	hashHex    = 2 * sha256.Size

	timeLayout = "2006-01-02T15:04:05.000000Z"

	// maxLineBytes is above the largest line that MaxFieldBytes and MaxDetails
	// allow, with every byte escaped.
	maxLineBytes = 2 << 20
)

// A position names a line and the file that it stands in, and with its hash the whole log up to it.
type position struct {
	file     int
	sequence uint64
	hash     string // 64 characters of lower case hexadecimal
}

// start is the position before the first line.
func start() position {
	return position{file: 1, hash: strings.Repeat("0", hashHex)}
}

// appendLine appends the line after p, with members as appendEvent made them, and
// returns its position.
func (p position) appendLine(b []byte, now time.Time, members []byte) ([]byte, position) {
	from := len(b)
	b = append(b, `{"@timestamp":"`...)
	b = now.UTC().AppendFormat(b, timeLayout)
	b = append(b, `","event.sequence":`...)
	b = strconv.AppendUint(b, p.sequence+1, 10)
	b = append(b, members...)
	b = append(b, `,"sallyport.prev":"`...)
	b = append(b, p.hash...)
	b = append(b, '"')
	b, hash := seal(b, from)
	return b, position{file: p.file, sequence: p.sequence + 1, hash: hash}
}

// parsed is what the chain needs to know of a line.
type parsed struct {
	Time     time.Time `json:"@timestamp"`
	Sequence uint64    `json:"event.sequence"`
	Prev     string    `json:"sallyport.prev"`

	hash string
}

// parseLine checks that line is whole and carries its own hash.
func parseLine(line []byte) (parsed, error) {
	hash, err := unseal(line)
	if err != nil {
		return parsed{}, err
	}
	p := parsed{hash: hash}
	if err := json.Unmarshal(line, &p); err != nil {
		return parsed{}, fmt.Errorf("it is not a record: %w", err)
	}
	return p, nil
}

// follow returns the position of line, which stands in the given file, if it is
// the one after p.
func (p position) follow(line parsed, file int) (position, error) {
	if line.Sequence != p.sequence+1 {
		return p, fmt.Errorf("it is event %d where event %d should be", line.Sequence, p.sequence+1)
	}
	if line.Prev != p.hash {
		return p, fmt.Errorf("it does not follow event %d: the hash of the event before it is another", p.sequence)
	}
	return position{file: file, sequence: line.Sequence, hash: line.hash}, nil
}

// seal ends the line that begins at from with its hash.
func seal(b []byte, from int) ([]byte, string) {
	sum := sha256.Sum256(b[from:])
	hash := hex.EncodeToString(sum[:])
	b = append(b, hashMember...)
	b = append(b, hash...)
	return append(b, lineEnd...), hash
}

// unseal returns the hash of a line that carries the right one.
func unseal(line []byte) (string, error) {
	rest, ok := bytes.CutSuffix(line, []byte(lineEnd))
	if !ok {
		return "", errors.New("it has no proper end")
	}
	if len(rest) < hashHex+len(hashMember) {
		return "", errors.New("it is too short for a record")
	}
	body, hash := rest[:len(rest)-hashHex], rest[len(rest)-hashHex:]
	body, ok = bytes.CutSuffix(body, []byte(hashMember))
	if !ok {
		return "", errors.New("it carries no hash")
	}
	sum := sha256.Sum256(body)
	if hex.EncodeToString(sum[:]) != string(hash) {
		return "", errors.New("its bytes do not have the hash that it carries")
	}
	return string(hash), nil
}
