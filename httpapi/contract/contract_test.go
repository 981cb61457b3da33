package contract

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const tiny = `{"openapi":"3.1.0","info":{"title":"t","version":"1"},
"paths":{"/things/{id}":{"post":{
 "parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"string"}}],
 "requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Ask"}}}},
 "responses":{
  "200":{"description":"ok","content":{"application/json":{"schema":{"$ref":"#/components/schemas/Thing"}},"application/x-ndjson":{"schema":{"$ref":"#/components/schemas/Frame"}}}},
  "422":{"description":"no","x-codes":["bad"],"content":{"application/problem+json":{"schema":{"$ref":"#/components/schemas/Problem"}}}}}}}},
"components":{"schemas":{
 "Ask":{"type":"object","required":["n"],"additionalProperties":false,"properties":{"n":{"type":"integer"}}},
 "Thing":{"type":"object","required":["name"],"properties":{"name":{"type":"string"}}},
 "Frame":{"type":"object","required":["event"],"properties":{"event":{"enum":["start","stdout","exit","error"]}}},
 "Problem":{"type":"object","required":["code"],"properties":{"code":{"type":"string"}}}}}}`

// complaints is a test that remembers its errors.
type complaints struct {
	testing.TB
	errors []string
}

func (c *complaints) Helper() {}
func (c *complaints) Errorf(format string, args ...any) {
	c.errors = append(c.errors, fmt.Sprintf(format, args...))
}

func TestALieIsFound(t *testing.T) {
	t.Parallel()
	const json, problem, ndjson = "application/json", "application/problem+json", "application/x-ndjson"
	for _, c := range []struct {
		name         string
		method, path string
		ask          string
		status       int
		media, body  string
		complaint    string // "" if there must be none
	}{
		{"true", "POST", "/things/1", `{"n":1}`, 200, json, `{"name":"x"}`, ""},
		{"wrong type", "POST", "/things/1", `{"n":1}`, 200, json, `{"name":1}`, "got number, want string"},
		{"missing", "POST", "/things/1", `{"n":1}`, 200, json, `{}`, "missing property 'name'"},
		{"more than documented", "POST", "/things/1", `{"n":1}`, 200, json, `{"name":"x","age":1}`, "additional properties 'age'"},
		{"media type", "POST", "/things/1", `{"n":1}`, 200, "text/plain", `x`, "Content-Type"},
		{"status", "POST", "/things/1", `{"n":1}`, 418, json, `{}`, "status is not supported"},
		{"bad request accepted", "POST", "/things/1", `{"n":"1"}`, 200, json, `{"name":"x"}`, "request was accepted"},
		{"bad request refused", "POST", "/things/1", `{"n":"1"}`, 422, problem, `{"code":"bad"}`, ""},
		{"other code", "POST", "/things/1", `{"n":"1"}`, 422, problem, `{"code":"worse"}`, `code "worse" is not documented`},
		{"unknown path", "POST", "/nothing", `{}`, 200, json, `{}`, "not documented"},
		{"unknown path refused", "POST", "/nothing", `{}`, 404, problem, `{"code":"bad"}`, ""},
		{"404 without a document", "POST", "/nothing", `{}`, 404, problem, `{}`, "missing property 'code'"},
		{"405 without Allow", "GET", "/things/1", ``, 405, problem, `{"code":"bad"}`, "Allow"},
		{"stream", "POST", "/things/1", `{"n":1}`, 200, ndjson, "{\"event\":\"start\"}\n{\"event\":\"exit\"}\n", ""},
		{"stream without end", "POST", "/things/1", `{"n":1}`, 200, ndjson, "{\"event\":\"start\"}\n", `ends with "start"`},
		{"stream goes on", "POST", "/things/1", `{"n":1}`, 200, ndjson, "{\"event\":\"start\"}\n{\"event\":\"exit\"}\n{\"event\":\"stdout\"}\n", "in the order"},
		{"stream without start", "POST", "/things/1", `{"n":1}`, 200, ndjson, "{\"event\":\"exit\"}\n", "in the order"},
		{"unknown frame", "POST", "/things/1", `{"n":1}`, 200, ndjson, "{\"event\":\"begin\"}\n", "frame"},
		{"empty stream", "POST", "/things/1", `{"n":1}`, 200, ndjson, "", "without frames"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			found := &complaints{TB: t}
			h := Check(found, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/openapi.json" {
					_, _ = io.WriteString(w, tiny)
					return
				}
				_, _ = io.ReadAll(r.Body)
				w.Header().Set("Content-Type", c.media)
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			r := httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.ask))
			r.Header.Set("Content-Type", json)
			h.ServeHTTP(httptest.NewRecorder(), r)
			got := strings.Join(found.errors, "\n")
			if (got == "") != (c.complaint == "") || !strings.Contains(got, c.complaint) {
				t.Errorf("complaint %q, want %q", got, c.complaint)
			}
		})
	}
}

func TestAnUnreadBodyIsFound(t *testing.T) {
	t.Parallel()
	found := &complaints{TB: t}
	h := Check(found, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/openapi.json" {
			_, _ = io.WriteString(w, tiny)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"name":"x"}`)
	}))
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/things/1", strings.NewReader(`{"n":1}`))
	h.ServeHTTP(httptest.NewRecorder(), r)
	if len(found.errors) != 1 || !strings.Contains(found.errors[0], "not read to the end") {
		t.Errorf("complaints %q", found.errors)
	}
}
