package executor

import (
	"bytes"
	"crypto/rand"
	"io"
)

// marked runs a program, its arguments, after it has printed a line that nobody can
// foresee. What stands before that line was printed by a login script.
const marked = `printf '\n%s\n' "$1"; shift; exec "$@"`

// An afterMark gives on what comes after the mark: to w, or to reply up to maxReply
// bytes if w is nil.
type afterMark struct {
	mark  string
	w     io.Writer
	reply bytes.Buffer
	seen  bool
	rest  []byte // before the mark: what may be a part of it
}

func newAfterMark(w io.Writer) *afterMark { return &afterMark{mark: rand.Text(), w: w} }

// Write implements io.Writer.
func (a *afterMark) Write(p []byte) (int, error) {
	if a.seen {
		return len(p), a.give(p)
	}
	data, line := append(a.rest, p...), []byte("\n"+a.mark+"\n")
	_, after, ok := bytes.Cut(data, line)
	if !ok {
		a.rest = append([]byte(nil), data[max(0, len(data)-len(line)):]...)
		return len(p), nil
	}
	a.seen, a.rest = true, nil
	return len(p), a.give(after)
}

func (a *afterMark) give(p []byte) error {
	if a.w != nil && len(p) > 0 {
		_, err := a.w.Write(p)
		return err
	}
	if a.w == nil {
		a.reply.Write(p[:min(len(p), maxReply-a.reply.Len())])
	}
	return nil
}
