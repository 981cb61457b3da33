package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sallyport/identity"
	"sallyport/store/audit"
)

// event is what all events about a caller on a node have in common.
func event(action audit.Action, outcome audit.Outcome, caller identity.Identity, system, node string) audit.Event {
	return audit.Event{
		Action: action, Outcome: outcome,
		Issuer: caller.Alias(), Subject: caller.Subject(), Login: caller.Login(),
		System: system, Node: node, Detail: caller.TokenDetail(),
	}
}

// startOnly are the details that only the record of a start has.
var startOnly = [...]string{"command", "workdir", "env_names", "env_sha256", "token_sha256", "jti", "client", "token_binding"} //nolint:gochecknoglobals // a constant

// endDetail is what the record of an end has of that of its start, which its exec_id
// or file_id finds.
func endDetail(start audit.Event) map[string]string {
	detail := maps.Clone(start.Detail)
	for _, once := range startOnly {
		delete(detail, once)
	}
	return detail
}

// startEvent describes a command that is about to start.
func (e *Executor) startEvent(caller identity.Identity, start Start, prep prepared) audit.Event {
	ev := event(audit.ExecStart, audit.Unknown, caller, start.System, start.Node)
	sum := sha256.Sum256([]byte(prep.text))
	maps.Copy(ev.Detail, map[string]string{
		"exec_id":        start.ID,
		"user":           start.User,
		"command_sha256": hex.EncodeToString(sum[:]),
		"command_bytes":  strconv.Itoa(len(prep.text)),
		"timeout_ms":     strconv.FormatInt(prep.timeout.Milliseconds(), 10),
	})
	if start.CertificateSerial != 0 {
		ev.Detail["certificate_serial"] = strconv.FormatUint(start.CertificateSerial, 10)
	}
	if prep.workdir != "" {
		ev.Detail["workdir"] = prep.workdir
	}
	if len(prep.env) > 0 {
		ev.Detail["env_names"], ev.Detail["env_sha256"] = describeEnvironment(prep.env)
	}
	if e.auditCommands {
		ev.Detail["command"] = prep.text
	}
	return ev
}

// maxAuditedNames bounds the names of environment variables in an audit record,
// in bytes. The digest is over all of them.
const maxAuditedNames = 2 << 10

// describeEnvironment names the variables, sorted, and hashes "NAME=VALUE" with a
// NUL byte after each, sorted too, so that the values are fixed and not given away.
func describeEnvironment(env map[string]string) (names, digest string) {
	sum := sha256.New()
	sorted := slices.Sorted(maps.Keys(env))
	for _, name := range sorted {
		_, _ = io.WriteString(sum, name+"="+env[name]+"\x00") // never fails
	}
	names = strings.Join(sorted, " ")
	if len(names) > maxAuditedNames {
		names = names[:maxAuditedNames] + "..."
	}
	return names, hex.EncodeToString(sum.Sum(nil))
}

// auditEnd records how a command ended, soon: the caller has the answer while the
// disk is at work, and Close waits for it. A crash in that moment loses the end of a
// command whose start is on record. The act is done, so an error can only be logged; the next start will be refused while the audit log is not writable.
func (e *Executor) auditEnd(ctx context.Context, start audit.Event, r Result, p *process, why error) {
	ev := start
	ev.Action = audit.ExecEnd
	ev.Detail = endDetail(start)
	ev.Detail["duration_ms"] = strconv.FormatInt(r.Duration.Milliseconds(), 10)
	ev.Detail["stdout_bytes"] = strconv.FormatInt(p.stdout.total, 10)
	ev.Detail["stderr_bytes"] = strconv.FormatInt(p.stderr.total, 10)
	if p.input != nil {
		size, digest := p.input.taken()
		ev.Detail["stdin_bytes"], ev.Detail["stdin_sha256"] = strconv.FormatInt(size, 10), digest
	}
	if p.job != nil {
		ev.Detail["session"] = "warm"
	}
	ev.Detail["truncated"] = strconv.FormatBool(r.Truncated)
	switch {
	case errors.Is(why, errRefused):
		ev.Outcome = audit.Failure
	case !p.ended():
		ev.Outcome = audit.Unknown
	case r.Signal != "":
		ev.Outcome = audit.Failure
		ev.Detail["signal"] = r.Signal
	default:
		ev.Detail["exit_code"] = strconv.Itoa(r.ExitCode)
		ev.Outcome = audit.Success
		if r.ExitCode != 0 {
			ev.Outcome = audit.Failure
		}
	}
	ev.Reason = reason(why)
	ctx = context.WithoutCancel(ctx)
	e.background.Add(1)
	audit.RecordLater(ctx, e.audit, ev, func(err error) {
		defer e.background.Done()
		if err != nil {
			e.log.ErrorContext(ctx, "end of a command is not in the audit log",
				slog.String("exec_id", start.Detail["exec_id"]), slog.Any("error", err))
		}
	})
}

// reason words why a command did not end by itself.
func reason(why error) string {
	switch {
	case why == nil:
		return ""
	case errors.Is(why, errTimeout):
		return "timeout"
	case errors.Is(why, errOutput):
		return "output not taken"
	case errors.Is(why, errInput):
		return "input failed"
	case errors.Is(why, ErrClosed):
		return "shutdown"
	case errors.Is(why, ErrRevoked):
		return "revoked"
	case errors.Is(why, errRefused):
		return "node refused to start the command"
	case errors.Is(why, context.Canceled), errors.Is(why, context.DeadlineExceeded):
		return "client gone"
	}
	return "connection lost"
}

// auditHostRefused records that a host key was not accepted. Nothing was sent to
// the host, so an audit log that is not writable changes nothing about that.
func (e *Executor) auditHostRefused(ctx context.Context, s *system, caller identity.Identity, node string, why error) {
	ev := event(audit.HostRefused, audit.Failure, caller, s.Name, node)
	ev.Reason = "host keys are not known"
	if key, ok := errors.AsType[*hostKeyError](why); ok {
		ev.Reason = key.complaint.Error()
		maps.Copy(ev.Detail, map[string]string{
			"key_type":              key.shown.Type(),
			"fingerprint":           key.fingerprint(),
			"expected_fingerprints": strings.Join(key.expected, ", "),
		})
	}
	if err := e.audit.Record(context.WithoutCancel(ctx), ev); err != nil {
		e.log.ErrorContext(ctx, "a refused host key is not in the audit log",
			slog.String("node", node), slog.Any("error", err))
	}
}
