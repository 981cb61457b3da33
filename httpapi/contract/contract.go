// Package contract holds HTTP exchanges against the API document that the service
// itself serves, so that the document cannot drift from the code. It is for tests
// only.
package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

// Check wraps h, which must serve /openapi.json without a token. Every exchange
// that passes through the result fails t unless
//
//   - the path and method are documented, or the answer is a 404 or 405 problem;
//   - a request that was answered with 2xx is a valid one;
//   - the answer's status, media type, headers and body are documented, with no
//     field beyond the documented ones;
//   - a problem's code is one that the document lists for the call and status;
//   - a stream begins with "start" and ends with "exit" or "error", unless its
//     client left.
//
// Streams pass through as they happen.
func Check(t testing.TB, h http.Handler) http.Handler {
	t.Helper()
	doc, err := load(t.Context(), h)
	if err != nil {
		t.Fatalf("API document: %v", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent := &recorder{ResponseWriter: w, control: http.NewResponseController(w)}
		asked := &body{ReadCloser: r.Body}
		r.Body = asked
		h.ServeHTTP(sent, r) // a panic passes, unchecked
		if err := doc.exchange(r, asked, sent); err != nil {
			t.Errorf("contract: %s %s answered %d: %v\n%.2000s", r.Method, r.URL.EscapedPath(), sent.status, err, sent.body.String())
		}
	})
}

// document is the API document.
type document struct{ *openapi3.T }

func load(ctx context.Context, h http.Handler) (document, error) {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequestWithContext(ctx, http.MethodGet, "/openapi.json", nil))
	if rec.Code != http.StatusOK {
		return document{}, fmt.Errorf("status %d", rec.Code)
	}
	doc, err := openapi3.NewLoader().LoadFromData(rec.Body.Bytes())
	if err != nil {
		return document{}, err
	}
	if err := doc.Validate(ctx); err != nil {
		return document{}, err
	}
	// The document leaves answers open, for fields to come. Today's are known.
	closed := false
	for _, s := range doc.Components.Schemas {
		if s.Value.Properties != nil && s.Value.AdditionalProperties.Has == nil {
			s.Value.AdditionalProperties.Has = &closed
		}
	}
	return document{doc}, nil
}

// exchange checks one request with its answer.
func (d document) exchange(r *http.Request, asked *body, sent *recorder) error {
	const clientGone = 499 // nobody is there to read it
	if sent.status == clientGone {
		return nil
	}
	route, params := d.find(r)
	if route == nil {
		return d.strayed(sent)
	}
	in := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: hasToken},
	}
	if sent.status/100 == 2 {
		if err := request(r, in, asked); err != nil {
			return fmt.Errorf("request was accepted: %w", err)
		}
	}
	media, _, _ := mime.ParseMediaType(sent.Header().Get("Content-Type"))
	streamed := media == "application/x-ndjson" || media == "text/event-stream"
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: sent.status, Header: sent.Header(),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: streamed || media == "text/html"},
	}
	out.SetBodyBytes(sent.body.Bytes())
	if err := openapi3filter.ValidateResponse(r.Context(), out); err != nil {
		return err
	}
	switch {
	case r.Method == http.MethodHead:
		return nil
	case media == "application/problem+json":
		return code(route.Operation.Responses.Status(sent.status).Value, sent.body.Bytes())
	case streamed:
		return d.frames(media, sent.body.String(), r.Context().Err() != nil)
	}
	return nil
}

// request needs the whole body; a handler that accepts a request has read it.
func request(r *http.Request, in *openapi3filter.RequestValidationInput, asked *body) error {
	if in.Route.Operation.RequestBody != nil && !asked.ended {
		return errors.New("its body was not read to the end")
	}
	r.Body = io.NopCloser(&asked.read)
	return openapi3filter.ValidateRequest(context.WithoutCancel(r.Context()), in)
}

func hasToken(_ context.Context, in *openapi3filter.AuthenticationInput) error {
	if !strings.HasPrefix(strings.ToLower(in.RequestValidationInput.Request.Header.Get("Authorization")), in.SecurityScheme.Scheme+" ") {
		return errors.New("without a token")
	}
	return nil
}

// find matches the escaped path segment by segment; no route means that the
// document has none. HEAD is documented by GET.
func (d document) find(r *http.Request) (*routers.Route, map[string]string) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	segments := strings.Split(r.URL.EscapedPath(), "/")
	for _, path := range d.Paths.InMatchingOrder() {
		params := make(map[string]string)
		matches := func(template, segment string) bool {
			if name, ok := strings.CutPrefix(template, "{"); ok && segment != "" {
				params[strings.TrimSuffix(name, "}")] = segment
				return true
			}
			return template == segment
		}
		if !slices.EqualFunc(strings.Split(path, "/"), segments, matches) {
			continue
		}
		item := d.Paths.Value(path)
		if op, ok := item.Operations()[method]; ok {
			return &routers.Route{Spec: d.T, Path: path, PathItem: item, Method: method, Operation: op}, params
		}
	}
	return nil, nil
}

// strayed checks the answer to a request that the document does not know.
func (d document) strayed(sent *recorder) error {
	if sent.status != http.StatusNotFound && sent.status != http.StatusMethodNotAllowed && sent.status < 500 {
		return errors.New("the call is not documented")
	}
	if (sent.status == http.StatusMethodNotAllowed) != (sent.Header().Get("Allow") != "") {
		return errors.New("405 and Allow do not come together")
	}
	if sent.body.Len() == 0 {
		return nil // HEAD
	}
	return d.conforms("Problem", sent.body.Bytes())
}

// code checks that the problem is one that the answer may have.
func code(r *openapi3.Response, problem []byte) error {
	var p struct{ Code string }
	if err := json.Unmarshal(problem, &p); err != nil {
		return err
	}
	codes, ok := r.Extensions["x-codes"].([]any)
	if !ok || !slices.Contains(codes, any(p.Code)) {
		return fmt.Errorf("code %q is not documented for this call and status", p.Code)
	}
	return nil
}

// frames checks every frame of a stream, and their order.
func (d document) frames(media, stream string, cut bool) error {
	var events []string
	for line := range strings.SplitSeq(stream, "\n") {
		if media == "text/event-stream" {
			data, ok := strings.CutPrefix(line, "data: ")
			if !ok {
				continue
			}
			line = data
		}
		if line == "" {
			continue
		}
		if err := d.conforms("Frame", []byte(line)); err != nil {
			return fmt.Errorf("frame %s: %w", line, err)
		}
		var frame struct{ Event string }
		if err := json.Unmarshal([]byte(line), &frame); err != nil {
			return err
		}
		events = append(events, frame.Event)
	}
	return order(events, cut)
}

func order(events []string, cut bool) error {
	for i, event := range events {
		last := event == "exit" || event == "error"
		if (event == "start") != (i == 0) || last && i != len(events)-1 {
			return fmt.Errorf("frames in the order %q", events)
		}
		if i == len(events)-1 && !last && !cut {
			return fmt.Errorf("stream ends with %q", event)
		}
	}
	if len(events) == 0 && !cut {
		return errors.New("stream without frames")
	}
	return nil
}

func (d document) conforms(schema string, data []byte) error {
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	return d.Components.Schemas[schema].Value.VisitJSON(v, openapi3.EnableJSONSchema2020())
}

// body remembers what was read of a request.
type body struct {
	io.ReadCloser
	read  bytes.Buffer
	ended bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Write(p[:n])
	b.ended = b.ended || errors.Is(err, io.EOF)
	return n, err
}

// recorder remembers an answer while it passes it on.
type recorder struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
	body    bytes.Buffer
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.body.Write(p)
	return r.ResponseWriter.Write(p)
}

func (r *recorder) FlushError() error { return r.control.Flush() }
