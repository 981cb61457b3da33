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

// ErrChain is wrapped by every error of Open and Verify that says the log is not
// what was written: a line was changed, removed, inserted or moved, or the end is
// missing.
var ErrChain = errors.New("audit chain is broken")

// A line is a JSON object that ends with its own hash:
//
//	{"@timestamp":"…","event.sequence":7,…,"sallyport.prev":"HASH OF LINE 6","event.hash":"SHA-256"}
//
// The hash is that of all bytes of the line before `,"event.hash"`, so it covers
// the spelling of the line and not only its meaning, and through sallyport.prev
// every line before it.
const (
	timeMember = `{"@timestamp":"`
	prevMember = `,"sallyport.prev":"`
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

// appendLine appends the line after p, with members as membersOf made them, and
// returns its position.
func (p position) appendLine(b []byte, now time.Time, members []byte) ([]byte, position) {
	from := len(b)
	b = append(b, timeMember...)
	b = now.UTC().AppendFormat(b, timeLayout)
	b = append(b, `","event.sequence":`...)
	b = strconv.AppendUint(b, p.sequence+1, 10)
	b = append(b, members...)
	b = append(b, prevMember...)
	b = append(b, p.hash...)
	b = append(b, '"')
	b, hash := seal(b, from)
	return b, position{file: p.file, sequence: p.sequence + 1, hash: hash}
}

// parsed is what the chain needs to know of a line.
type parsed struct {
	time     time.Time
	sequence uint64
	prev     string
	hash     string
}

// parseLine checks that line carries its own hash and has the form that
// appendLine gives it.
func parseLine(line []byte) (parsed, error) {
	body, hash, err := unseal(line)
	if err != nil {
		return parsed{}, err
	}
	p := parsed{hash: hash}
	at, rest, ok := cutPair(body, timeMember, `","event.sequence":`)
	p.time, err = time.Parse(timeLayout, at)
	if !ok || err != nil {
		return parsed{}, errors.New("it does not begin with a time")
	}
	sequence, _, ok := bytes.Cut(rest, []byte(","))
	p.sequence, err = strconv.ParseUint(string(sequence), 10, 64)
	if !ok || err != nil {
		return parsed{}, errors.New("it has no event.sequence")
	}
	i := bytes.LastIndex(body, []byte(prevMember))
	if i < 0 || len(body)-i != len(prevMember)+hashHex+1 {
		return parsed{}, errors.New("it does not name the hash of the line before")
	}
	p.prev = string(body[i+len(prevMember):][:hashHex])
	if !json.Valid(line) {
		return parsed{}, errors.New("it is not JSON")
	}
	return p, nil
}

// cutPair returns what stands in b between before, with which it must begin, and
// after, and what follows.
func cutPair(b []byte, before, after string) (inner string, rest []byte, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte(before))
	if !ok {
		return "", nil, false
	}
	in, rest, ok := bytes.Cut(b, []byte(after))
	return string(in), rest, ok
}

// follow returns the position of line, which stands in the given file, if it is
// the one after p.
func (p position) follow(line parsed, file int) (position, error) {
	if line.sequence != p.sequence+1 {
		return p, fmt.Errorf("it is event %d where event %d should be", line.sequence, p.sequence+1)
	}
	if line.prev != p.hash {
		return p, fmt.Errorf("it does not follow event %d: the hash of the event before it is another", p.sequence)
	}
	return position{file: file, sequence: line.sequence, hash: line.hash}, nil
}

// seal ends the line that begins at from with its hash.
func seal(b []byte, from int) ([]byte, string) {
	sum := sha256.Sum256(b[from:])
	hash := hex.EncodeToString(sum[:])
	b = append(b, hashMember...)
	b = append(b, hash...)
	return append(b, lineEnd...), hash
}

// unseal returns the hash of a line that carries the right one, and the bytes
// that it covers.
func unseal(line []byte) (body []byte, hash string, err error) {
	body, ok := bytes.CutSuffix(line, []byte(lineEnd))
	if !ok {
		return nil, "", errors.New("it has no proper end")
	}
	if len(body) < hashHex+len(hashMember) {
		return nil, "", errors.New("it is too short for a record")
	}
	body, hash = body[:len(body)-hashHex], string(body[len(body)-hashHex:])
	body, ok = bytes.CutSuffix(body, []byte(hashMember))
	if !ok {
		return nil, "", errors.New("it carries no hash")
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != hash {
		return nil, "", errors.New("its bytes do not have the hash that it carries")
	}
	return body, hash, nil
}
