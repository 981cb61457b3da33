package firecrest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport/executor"
	"sallyport/httpapi"
	"sallyport/identity"
	"sallyport/policy"
	"sallyport/store/audit"
)

// A call is one request of a known caller for one operation.
type call struct {
	handler *Handler
	w       http.ResponseWriter
	r       *http.Request
	caller  identity.Identity
	// system is that of the path; nil if the path names none.
	system *system
	// vars are the variables of the path, in lower case.
	vars map[string]string

	// tree says that the call reaches what lies below its paths, submits which job it is to make.
	tree    bool
	submits policy.Job

	mu      sync.Mutex        // guards what follows: a call may run two commands at a time
	outputs []*httpapi.Output // of commands, which count until the call is answered
	told    bool              // the policy was told of job and paths
	allowed []string          // paths that it was told of
}

// output is where a command's stream goes.
func (c *call) output() *httpapi.Output {
	o := httpapi.OutputOf(c.r.Context())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outputs = append(c.outputs, o)
	return o
}

// release gives back what the outputs of commands took.
func (c *call) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.outputs {
		o.Release()
	}
}

// query returns the parameters of the query.
func (c *call) query() *fields {
	f := &fields{location: "query"}
	raw := c.r.URL.RawQuery
	if n := strings.Count(raw, "&"); n >= maxParameters {
		f.refuse("", "There should be at most %d parameters", maxParameters)
		raw = ""
	}
	values := parseQuery(raw)
	f.get = func(name string) (any, bool) {
		if !values.Has(name) {
			return nil, false
		}
		return values.Get(name), true
	}
	return f
}

// maxParameters bounds those of a query: each takes many times the memory that its text does.
const maxParameters = 256

// bodyCopies is how often decoding copies the text of a body: twice into the decoder's
// buffer while that grows, and into the strings.
const bodyCopies = 3

// body reads the body, a JSON object of at most Config.MaxBody bytes. Neither the
// media type nor unknown keys matter.
func (c *call) body() (*fields, error) {
	text, err := httpapi.ReadJSON(c.w, c.r, c.handler.cfg.MaxBody, bodyCopies)
	if err != nil {
		return nil, err
	}
	return parseBody(text)
}

// answer writes v, a type of this package, as JSON.
func (c *call) answer(status int, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	c.w.WriteHeader(status)
	_, _ = c.w.Write(b.Bytes()) // a client that is gone needs no answer
	return nil
}

// noContent answers 204. The media type of nothing is FirecREST's.
func (c *call) noContent() error {
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// run runs a command on the call's system as the caller. A result that is not
// whole, because time or room was over, is an error.
func (c *call) run(ctx context.Context, cmd executor.Command) (executor.Result, error) {
	if err := c.decided(); err != nil { //nolint:contextcheck // the decision is the request's
		return executor.Result{}, err
	}
	stdout, stderr := c.output(), c.output() //nolint:contextcheck // the memory is the request's
	cmd.Own, cmd.Stdout, cmd.Stderr = true, stdout, stderr
	began := time.Now()
	result, err := c.handler.cfg.Commands.Run(ctx, c.caller, c.system.Name, cmd)
	result.Stdout, result.Stderr = stdout.Take(), stderr.Take()
	result.Truncated = stdout.Truncated() || stderr.Truncated()
	switch {
	case errors.Is(err, executor.ErrUnavailable), errors.Is(err, executor.ErrHostKey):
		c.system.health.note("ssh", began, "Unable to establish SSH connection.")
		return result, err
	case err != nil:
		return result, err
	}
	c.system.health.note("ssh", began, "")
	switch {
	case result.TimedOut:
		return result, errTimedOut
	case result.Truncated:
		return result, errOutputTooLarge
	}
	return result, nil
}

// setHeaders sets what every answer has. The id of the request is set already.
func setHeaders(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("F7T-AppVersion", CompatibilityLevel)
	h.Set("F7T-Timestamp", fmt.Sprintf("%.6f", float64(time.Now().UnixMicro())/1e6))
	id, ok := audit.CleanRequestID(strings.TrimSpace(r.Header.Get("X-Correlation-ID")))
	if !ok {
		id = w.Header().Get("X-Request-Id")
	}
	h.Set("X-Correlation-ID", id)
}
