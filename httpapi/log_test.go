package httpapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lines are the request lines of a service's log, without what differs each time.
func (s *service) lines(t *testing.T) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for text := range strings.Lines(s.log.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		if line["msg"] != "request" {
			continue
		}
		if d, ok := line["duration"].(float64); !ok || d <= 0 {
			t.Errorf("duration %v", line["duration"])
		}
		if id, ok := line["request_id"].(string); !ok || len(id) != 26 {
			t.Errorf("request_id %v is not one of ours", line["request_id"])
		}
		for _, name := range []string{"request_id", "time", "msg", "duration", "bytes"} {
			delete(line, name)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestOneLogLineSaysWhoAskedForWhatAndWhatCameOfIt(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	before := len(s.lines(t)) // the contract check has read the document
	s.do("POST", execPath, `{"command":"x"}`, "X-Request-Id", "r1")
	s.do("GET", "/v1/systems/eiger", "", "X-Request-Id", "r2")
	s.do("BREW", "/livez", "", "X-Request-Id", "r3", "Authorization", "")
	s.do("GET", "/nowhere", "", "X-Request-Id", "r4", "Authorization", "")
	alice := map[string]any{
		"issuer": "test", "subject": "sub-alice", "login": "alice",
		"token_sha256": s.api.cfg.Tokens.(fakeTokens).alice.TokenDigest(),
	}
	want := []map[string]any{
		{"level": "INFO", "client_request_id": "r1", "source_ip": "127.0.0.1", "method": "POST", "route": "/v1/systems/{system}/exec", "status": 200.0, "caller": alice},
		{"level": "INFO", "client_request_id": "r2", "source_ip": "127.0.0.1", "method": "GET", "route": "/v1/systems/{system}", "status": 404.0, "caller": alice, "code": "system_unknown", "error": `"eiger": no such system`},
		{"level": "INFO", "client_request_id": "r3", "source_ip": "127.0.0.1", "method": "other", "route": "/livez", "status": 405.0, "code": "method_not_allowed", "error": "method is not allowed here"},
		{"level": "INFO", "client_request_id": "r4", "source_ip": "127.0.0.1", "method": "GET", "route": "none", "status": 404.0, "code": "route_unknown", "error": "no such route"},
	}
	if diff := cmp.Diff(want, s.lines(t)[before:]); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestAnErrorInTheLogIsBounded(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.do("GET", "/v1/systems/"+strings.Repeat("%c3%a9", 8000), "")
	lines := s.lines(t)
	if text, ok := lines[len(lines)-1]["error"].(string); !ok || len(text) > 2100 || !strings.HasSuffix(text, "é…") {
		t.Errorf("the error has %d bytes", len(text))
	}
}
