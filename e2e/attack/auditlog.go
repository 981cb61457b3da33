package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/crypto/ssh"

	"sallyport/sshd-config/nodesync"
)

// An auditLog is the folders of a service's audit log, and what its live files hold.
type auditLog struct {
	dir, archive string
	files        []string
	lines        [][]byte // of all live files, in order; a nil one is left out
	in           []int    // the file that a line is in
	middle       int      // a line of user0, before the last checkpoint but one; 0 if there is none
	checkpoints  []int    // the lines that are checkpoints

	hashes map[string]string // of what was forged, by sequence
}

// read reads the live files. While the service writes them, the end may be torn.
func (l *auditLog) read() (err error) {
	l.lines, l.in, l.checkpoints, l.middle = nil, nil, nil, 0
	if l.files, err = filepath.Glob(filepath.Join(l.dir, "audit-*.jsonl")); err != nil {
		return err
	}
	for i, file := range l.files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(text) {
			l.lines, l.in = append(l.lines, line), append(l.in, i)
		}
	}
	for n, line := range l.lines {
		if bytes.Contains(line, []byte(`"event.action":"audit.checkpoint"`)) {
			l.checkpoints = append(l.checkpoints, n)
		}
	}
	for n := range l.lines {
		if len(l.checkpoints) > 2 && n < l.checkpoints[len(l.checkpoints)-2] && bytes.Contains(l.lines[n], []byte(login(0))) {
			l.middle = n
		}
	}
	return nil
}

// write writes the live files with the lines as they are now.
func (l *auditLog) write() error {
	texts := make([][]byte, len(l.files))
	for n, line := range l.lines {
		texts[l.in[n]] = append(texts[l.in[n]], line...)
	}
	var errs []error
	for i, file := range l.files {
		if len(texts[i]) == 0 {
			errs = append(errs, os.Remove(file))
			continue
		}
		errs = append(errs, os.WriteFile(file, texts[i], 0o600))
	}
	return errors.Join(errs...)
}

const prevMember, hashMember = `,"sallyport.prev":"`, `,"event.hash":"`

// forge edits the lines and computes a chain of them with right hashes, and a head of it,
// as everybody can who may write the folder. An edit that returns nil drops the line.
func (l *auditLog) forge(edit func(n int, line []byte) []byte) error {
	_, prev, found := bytes.Cut(l.lines[0], []byte(prevMember))
	if !found {
		return fmt.Errorf("%q has no hash of a line before it", l.lines[0])
	}
	hash, last := string(prev[:2*sha256.Size]), 0
	l.hashes = map[string]string{}
	for n, line := range l.lines {
		line = edit(n, line)
		if l.lines[n] = line; line == nil {
			continue
		}
		body := bytes.Clone(line[:bytes.LastIndex(line, []byte(prevMember))])
		l.lines[n], hash = seal(append(body, prevMember+hash+`"`...))
		_, sequence, _ := bytes.Cut(line, []byte(`"event.sequence":`))
		number, _, _ := bytes.Cut(sequence, []byte(","))
		l.hashes[string(number)], last = hash, n
	}
	return errors.Join(l.write(), l.head(last, hash))
}

// head writes a head that names a line as the last one, in both of its slots.
func (l *auditLog) head(last int, hash string) error {
	var record struct {
		Sequence uint64 `json:"event.sequence"`
	}
	if err := json.Unmarshal(l.lines[last], &record); err != nil {
		return err
	}
	var file int
	if _, err := fmt.Sscanf(filepath.Base(l.files[l.in[last]]), "audit-%d.jsonl", &file); err != nil {
		return err
	}
	slot, _ := seal(fmt.Appendf(nil, `{"sallyport.file":%d,"event.sequence":%d,"sallyport.head":"%s"`, file, record.Sequence, hash))
	slot = append(slot, bytes.Repeat([]byte(" "), 4096-len(slot))...)
	return os.WriteFile(filepath.Join(l.dir, "head"), append(slot, slot...), 0o600)
}

func seal(body []byte) (line []byte, hash string) {
	sum := sha256.Sum256(body)
	hash = hex.EncodeToString(sum[:])
	return append(body, hashMember+hash+"\"}\n"...), hash
}

// sign forges a chain with an edited line, whose checkpoints a key of the attacker signs.
func (l *auditLog) sign() error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return err
	}
	var failed error
	err = l.forge(func(n int, line []byte) []byte {
		if n == l.middle {
			line = anotherPerson(line)
		}
		signed, err := l.resign(signer, line)
		failed = errors.Join(failed, err)
		return signed
	})
	return errors.Join(failed, err)
}

// resign returns a checkpoint as the forged chain needs it, and other lines as they are.
func (l *auditLog) resign(signer ssh.Signer, line []byte) ([]byte, error) {
	var record struct {
		Checkpoint string `json:"sallyport.checkpoint"`
		Signature  string `json:"sallyport.signature"`
	}
	if err := json.Unmarshal(line, &record); err != nil || record.Signature == "" {
		return line, err
	}
	text, fields := record.Checkpoint, strings.Fields(record.Checkpoint)
	if forged := l.hashes[fields[1]]; forged != "" {
		text = strings.Replace(text, fields[2], forged, 1)
	}
	signature, err := nodesync.Sign(signer, "sallyport-audit", []byte(text))
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"checkpoint": text, "signature": string(signature)} {
		written, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		member := regexp.MustCompile(`"sallyport\.` + name + `":"[^"]*"`)
		line = member.ReplaceAllLiteral(line, fmt.Appendf(nil, `"sallyport.%s":%s`, name, written))
	}
	return line, nil
}
