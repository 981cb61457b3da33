package executor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/store/audit"
)

// An operation is what an audit record says about a change.
type operation struct {
	name, path string
	detail     map[string]string
	command    bool // it is one, whatever the node has
}

// How many operations over SFTP may begin in one turn of the caller's. One costs the node
// 20 to 100 µs, if several come together, where a command costs milliseconds; a listing
// or a change costs more. byItself is a command, which has a turn of its own.
const (
	byItself       = 0
	alone          = 1
	changeTogether = 4
	lookTogether   = 16
)

// begin is where every operation begins. Over SFTP it waits for a place at the node, as
// a command does, and keeps it until leave is called, a moment if it takes longer.
func (f *Files) begin(ctx context.Context, op, path string, together int) (leave func(), err error) {
	if f.closed.Load() {
		return nil, ErrClosed
	}
	if err := checkPath(op, path); err != nil || together == byItself || f.channel == nil {
		return func() {}, err
	}
	wait, cancel := context.WithTimeout(ctx, f.system.waitTimeout)
	defer cancel()
	place, err := f.system.enter(wait, f.channel.node, person{f.caller.Issuer(), f.caller.Subject()}, together)
	if err != nil {
		return nil, outOfTime(ctx, wait, err)
	}
	place.Begun()
	return place.Leave, nil
}

// look does what is not recorded: it shows names and attributes, no content.
func (f *Files) look(ctx context.Context, op, path string, act func() error) error {
	return f.lookBy(ctx, op, path, lookTogether, act)
}

func (f *Files) lookBy(ctx context.Context, op, path string, together int, act func() error) error {
	leave, err := f.begin(ctx, op, path, together)
	if err != nil {
		return err
	}
	defer leave()
	return f.count(f.fileError(ctx, op, path, false, act()))
}

// read is look for content, which is recorded before it is given away if the
// configuration says so.
func (f *Files) read(ctx context.Context, op, path string, together int, act func() error) error {
	return f.lookBy(ctx, op, path, together, func() error {
		if f.executor.auditReads {
			if err := f.executor.audit.Record(ctx, f.event(audit.FileRead, operation{name: op, path: path})); err != nil {
				return err
			}
		}
		return act()
	})
}

// change records what is about to be done, does it, and records how it ended. act
// may add to the detail of the end.
func (f *Files) change(ctx context.Context, o operation, act func(end map[string]string) error) error {
	together := changeTogether
	if o.command {
		together = byItself
	}
	leave, err := f.begin(ctx, o.name, o.path, together)
	if err != nil {
		return err
	}
	defer leave()
	start := f.event(audit.FileStart, o)
	start.Detail["file_id"] = strings.ToLower(rand.Text())
	if err := f.executor.audit.Record(ctx, start); err != nil {
		return err
	}
	began := time.Now()
	end := start
	end.Action, end.Detail = audit.FileEnd, endDetail(start)
	err = f.fileError(ctx, o.name, o.path, true, act(end.Detail))
	end.Detail["duration_ms"] = strconv.FormatInt(time.Since(began).Milliseconds(), 10)
	end.Outcome, end.Reason = outcome(err)
	// The act is done, so an error can only be logged; the next start will be refused.
	if failed := f.executor.audit.Record(context.WithoutCancel(ctx), end); failed != nil {
		f.executor.log.ErrorContext(ctx, "end of a file operation is not in the audit log",
			slog.String("file_id", start.Detail["file_id"]), slog.Any("error", failed))
	}
	return f.count(err)
}

func outcome(err error) (audit.Outcome, string) {
	if err == nil {
		return audit.Success, ""
	}
	if told, ok := errors.AsType[*FileError](err); ok {
		return audit.Failure, told.Err.Error()
	}
	return audit.Unknown, reason(err)
}

func (f *Files) count(err error) error {
	f.executor.fileStats.operations.Add(1)
	if f.channel == nil {
		f.executor.fileStats.commands.Add(1)
	}
	if err != nil {
		f.executor.fileStats.failed.Add(1)
	}
	return err
}

func (f *Files) event(action audit.Action, o operation) audit.Event {
	ev := event(action, audit.Unknown, f.caller, f.system.Name, f.Node())
	ev.Detail["operation"], ev.Detail["path"] = o.name, o.path
	maps.Copy(ev.Detail, o.detail)
	for _, name := range []string{"path", "target"} {
		if s := ev.Detail[name]; !utf8.ValidString(s) {
			sum := sha256.Sum256([]byte(s)) // the record cannot hold it as it is
			ev.Detail[name+"_sha256"] = hex.EncodeToString(sum[:])
		}
	}
	if f.channel != nil && f.channel.conn.serial != 0 {
		ev.Detail["certificate_serial"] = strconv.FormatUint(f.channel.conn.serial, 10)
	}
	return ev
}
