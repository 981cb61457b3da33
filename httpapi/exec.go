package httpapi

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/base64"
	"io"
	"net/http"
	"strconv"
	"strings"

	"sallyport/executor"
	"sallyport/identity"
)

const (
	mediaJSON   = "application/json"
	mediaNDJSON = "application/x-ndjson"
	mediaSSE    = "text/event-stream"
)

// execAnswer is how a command ended. Between its two parts stand the streams.
type execAnswer struct {
	ID       string  `json:"id"`
	System   string  `json:"system"`
	Node     string  `json:"node"`
	User     string  `json:"user"`
	ExitCode *int    `json:"exit_code"` // null when a signal ended it
	Signal   *string `json:"signal"`
	TimedOut bool    `json:"timed_out"`
}

type execAnswerEnd struct {
	Encoding          string  `json:"encoding"`
	Truncated         bool    `json:"truncated"`
	DurationMS        int64   `json:"duration_ms"`
	CertificateSerial *string `json:"certificate_serial"` // null without a certificate
}

// exec is POST /v1/systems/{system}/exec.
func (a *API) exec(w http.ResponseWriter, r *http.Request, caller identity.Identity) error {
	media, err := negotiate(r, mediaJSON, mediaNDJSON, mediaSSE)
	if err != nil {
		return err
	}
	system := pathValue(r, "system")
	if _, err := a.cfg.Commands.System(caller, system); err != nil {
		return err // before the body is read
	}
	body, err := a.readObject(w, r, a.cfg.MaxExecBody)
	if err != nil {
		return err
	}
	cmd, err := commandOf(body, media != mediaJSON)
	if err != nil {
		return err
	}
	if media != mediaJSON {
		return a.stream(w, r, media, caller, system, cmd)
	}
	stdout, stderr := a.collect(caller, cmd), a.collect(caller, cmd)
	defer stdout.release()
	defer stderr.release()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	result, err := a.cfg.Commands.Run(r.Context(), caller, system, cmd)
	if err != nil {
		return err
	}
	a.writeResult(w, result, stdout, stderr)
	return nil
}

func (a *API) collect(caller identity.Identity, cmd executor.Command) *collector {
	return &collector{memory: a.memory, caller: keyOf(caller), limit: cmp.Or(cmd.MaxOutput, a.cfg.MaxOutput)}
}

// commandOf reads the request. What a command may contain is for the executor to
// say; here it is only read without loss.
func commandOf(o *object, streamed bool) (executor.Command, error) {
	cmd := executor.Command{
		Line:    o.text("command"),
		Argv:    o.texts("argv"),
		Env:     o.textMap("env"),
		Workdir: o.text("workdir"),
		Timeout: o.duration("timeout"),
	}
	cmd.Stdin = stdin(o)
	cmd.MaxOutput = o.count("max_output_bytes")
	switch {
	case o.has("command") == o.has("argv"):
		o.refuse("command", "Exactly one of command and argv must be set.", "command", "argv")
	case o.has("command") && cmd.Line == "":
		o.refuse("command", "The command is empty.")
	case o.has("argv") && len(cmd.Argv) == 0:
		o.refuse("argv", "The list is empty.")
	case streamed && o.has("max_output_bytes"):
		o.refuse("max_output_bytes", "A streamed answer has no output limit.")
	}
	return cmd, o.finish()
}

// stdin takes the one of both fields that is set.
func stdin(o *object) io.Reader {
	text, encoded := o.text("stdin"), o.text("stdin_base64")
	if o.has("stdin") && o.has("stdin_base64") {
		o.refuse("stdin", "At most one of stdin and stdin_base64 may be set.", "stdin", "stdin_base64")
	}
	if o.has("stdin_base64") {
		data, err := base64.StdEncoding.Strict().DecodeString(encoded)
		if err != nil {
			o.refuse("stdin_base64", "The field must be base64 with padding (RFC 4648 §4).")
		}
		text = string(data)
	}
	if text == "" {
		return nil
	}
	return strings.NewReader(text)
}

// writeResult writes one JSON object. It ignores that a write fails, as writeBody
// does: the client is gone.
func (a *API) writeResult(w http.ResponseWriter, r executor.Result, stdout, stderr *collector) {
	code, signal := ending(r)
	head := marshal(execAnswer{
		ID: r.ID, System: r.System, Node: r.Node, User: r.User,
		ExitCode: code, Signal: signal, TimedOut: r.TimedOut,
	})
	encoding := encodingOf(stdout, stderr)
	end := marshal(execAnswerEnd{
		Encoding: encoding, Truncated: r.Truncated || stdout.truncated || stderr.truncated,
		DurationMS: r.Duration.Milliseconds(), CertificateSerial: serialOf(r.CertificateSerial),
	})
	w.Header().Set("Content-Type", mediaJSON)
	w.WriteHeader(http.StatusOK)
	out, ok := a.writers.Get().(*bufio.Writer)
	if !ok {
		out = bufio.NewWriterSize(nil, maxWrite)
	}
	out.Reset(w)
	defer func() {
		out.Reset(nil) // it must not keep the request alive
		a.writers.Put(out)
	}()
	_, err := out.Write(bytes.TrimSuffix(head, []byte("}\n")))
	for _, stream := range []struct {
		name string
		*collector
	}{{"stdout", stdout}, {"stderr", stderr}} {
		if err == nil {
			_, err = out.WriteString(`,"` + stream.name + `":`)
		}
		if err == nil {
			err = stream.writeString(out, encoding)
		}
	}
	if err == nil {
		_, err = out.WriteString("," + string(end[1:]))
	}
	if err == nil {
		_ = out.Flush()
	}
}

// ending is exit code or signal; the other is null.
func ending(r executor.Result) (code *int, signal *string) {
	if r.Signal != "" || r.ExitCode < 0 {
		return nil, &r.Signal
	}
	return &r.ExitCode, nil
}

// serialOf is a decimal string, since a JSON number of 63 bits is not safe in
// JavaScript; nil for 0.
func serialOf(serial uint64) *string {
	if serial == 0 {
		return nil
	}
	text := strconv.FormatUint(serial, 10)
	return &text
}

// systemView is a system as its callers see it.
type systemView struct {
	Name           string   `json:"name"`
	Description    string   `json:"description"`
	Nodes          []string `json:"nodes"`
	User           string   `json:"user"`
	DefaultTimeout float64  `json:"default_timeout_seconds"`
	MaxTimeout     float64  `json:"max_timeout_seconds"`
}

func viewOf(s executor.SystemInfo) systemView {
	return systemView{
		Name: s.Name, Description: s.Description, Nodes: append([]string{}, s.Nodes...), User: s.User,
		DefaultTimeout: s.DefaultTimeout.Seconds(), MaxTimeout: s.MaxTimeout.Seconds(),
	}
}

// systems is GET /v1/systems: those that the caller may use, and the policy lets them see.
func (a *API) systems(w http.ResponseWriter, r *http.Request, caller identity.Identity) error {
	views := []systemView{}
	for _, s := range a.cfg.Commands.Systems(caller) {
		listed, err := Listed(r.Context(), s.Name)
		if err != nil {
			return err
		}
		if listed {
			views = append(views, viewOf(s))
		}
	}
	writeJSON(w, http.StatusOK, struct {
		Systems []systemView `json:"systems"`
	}{views})
	return nil
}

// system is GET /v1/systems/{system}.
func (a *API) system(w http.ResponseWriter, r *http.Request, caller identity.Identity) error {
	info, err := a.cfg.Commands.System(caller, pathValue(r, "system"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, viewOf(info))
	return nil
}
