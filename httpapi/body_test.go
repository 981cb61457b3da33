package httpapi

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A caller who sends many large bodies slowly holds no more memory than his part.
func TestLargeBodiesOfOneCallerAreBoundedTogether(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	const all = 4 << 20
	s.api.bodies = newShare(all, all*3/4) // a body of 900 KiB is charged three times that
	whole := `{"command":"x","stdin":"` + strings.Repeat("a", 900<<10) + `"}`
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		execPath, good, len(whole), whole[:len(whole)-1])
	await := func(what string, done func(left int64) bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			left, _ := s.api.bodies.state()
			if done(left) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d of %d are left", what, left, all)
			}
		}
	}
	await("a body that comes in", func(left int64) bool { return all-left >= int64(len(whole))-freeBody })
	s.do("POST", execPath, whole).wantProblem(t, http.StatusTooManyRequests, "caller_overloaded")
	if a := s.do("POST", execPath, `{"command":"x"}`); a.status != http.StatusOK {
		t.Errorf("a small body: %d %s", a.status, a.body)
	}
	if _, err := io.WriteString(conn, "}"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the first body: %v %v", resp, err)
	}
	resp.Body.Close()
	await("after the answer", func(left int64) bool { return left == all })
	if a := s.do("POST", execPath, whole); a.status != http.StatusOK {
		t.Errorf("a large body alone: %d %s", a.status, a.body)
	}
	await("at the end", func(left int64) bool { return left == all })
}
