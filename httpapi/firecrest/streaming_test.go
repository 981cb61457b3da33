package firecrest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sallyport/ca/revocation"
	"sallyport/httpapi/firecrest"
)

const streamChunk = 5 << 20

var streamShape = map[string]shape{"transferJob": transferShape["transferJob"], "transferDirectives": map[string]shape{
	"transferMethod": "string", "coordinates": "string",
}}

// A streamSite is a file site whose files go over WebSockets, too.
type streamSite struct {
	*fileSite
	streaming *firecrest.Streaming
}

func newStreams(t *testing.T, wait time.Duration) *streamSite {
	t.Helper()
	streaming := &firecrest.Streaming{Hosts: []string{"127.0.0.1"}, Wait: wait, MaxUpload: 20 << 20}
	return &streamSite{newStreamSite(t, "internal-sftp", 0, 20*time.Second, streaming), streaming}
}

// offer asks for a transfer, and returns the id of its job and the secret.
func (s *streamSite) offer(direction, path string) (job, secret string) {
	s.t.Helper()
	v := s.as("alice", "POST", "/filesystem/clustera/transfer/"+direction, s.request(path)).answers(201, streamShape)
	text, err := base64.URLEncoding.DecodeString(v["transferDirectives"].(map[string]any)["coordinates"].(string))
	if err != nil {
		s.t.Fatal(err)
	}
	var coordinates struct {
		Ports  []int
		IPs    []string
		Secret string
	}
	if err := json.Unmarshal(text, &coordinates); err != nil || len(coordinates.Ports) != 2 || coordinates.Ports[0] != s.streaming.Port || coordinates.IPs[0] != "127.0.0.1" {
		s.t.Fatalf("coordinates %s: %v", text, err)
	}
	return v["transferJob"].(map[string]any)["jobId"].(string), coordinates.Secret
}

func (s *streamSite) request(path string) string {
	text, err := json.Marshal(map[string]any{"path": path, "transferDirectives": map[string]any{"transferMethod": "streamer"}})
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// knock brings a secret to the door, from an address of this machine.
func (s *streamSite) knock(secret, from string) (status int, location string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.(*testing.T).Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", s.streaming.Port), http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	stranger := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}, CheckRedirect: client.CheckRedirect}
	resp, err := stranger.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Location")
}

// enter goes the client's way.
func (s *streamSite) enter(secret string) *websocket.Conn {
	s.t.Helper()
	status, location := s.knock(secret, "127.0.0.1")
	if status != http.StatusTemporaryRedirect {
		s.t.Fatalf("the door answers %d", status)
	}
	conn, _, err := websocket.Dial(s.t.(*testing.T).Context(), location, &websocket.DialOptions{HTTPClient: client}) //nolint:bodyclose // a switch of protocols has none
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.CloseNow() })
	conn.SetReadLimit(streamChunk * 5 / 4)
	return conn
}

// state awaits that a stream is over, and says how.
func (s *streamSite) state(job string) string {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // a real connection
		v := s.as("alice", "GET", "/compute/clustera/jobs/"+job, "").answers(200, jobsShape)
		state := v["jobs"].([]any)[0].(map[string]any)["status"].(map[string]any)["state"].(string)
		if state != "RUNNING" || time.Now().After(deadline) {
			return state
		}
	}
}

// A message is what a client sends; text is for those of other software.
type message struct {
	kind websocket.MessageType
	data []byte
}

// sent is a whole file as streamer_client.py sends it: all of it as bytes.
func sent(data []byte) (list []message) {
	chunks := (len(data) + streamChunk - 1) / streamChunk
	add := func(b []byte) { list = append(list, message{websocket.MessageBinary, b}) }
	add(fmt.Appendf(nil, `{"type": "init", "num_chunks": %d, "file_size": %d}`, chunks, len(data)))
	for i := range chunks {
		add(data[i*streamChunk : min(len(data), (i+1)*streamChunk)])
	}
	digest := sha256.Sum256(data)
	add(fmt.Appendf(nil, `{"type": "eof", "sha256_hash": "%s"}`, hex.EncodeToString(digest[:])))
	return list
}

func (s *streamSite) send(conn *websocket.Conn, list []message) {
	for _, m := range list {
		if err := conn.Write(context.Background(), m.kind, m.data); err != nil {
			return // the service has ended it: the job says why
		}
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
}

// fetch reads a file as streamer_client.py does.
func (s *streamSite) fetch(conn *websocket.Conn) []byte {
	s.t.Helper()
	var got bytes.Buffer
	for first := true; ; first = false {
		kind, data, err := conn.Read(context.Background())
		if err != nil {
			s.t.Fatal(err)
		}
		digest := sha256.Sum256(got.Bytes())
		switch {
		case first:
			if kind != websocket.MessageBinary || !bytes.HasPrefix(data, []byte(`{"type":"init","num_chunks":`)) {
				s.t.Errorf("first message: %q", data)
			}
		case kind == websocket.MessageText:
			if want := `{"type":"eof","sha256_hash":"` + hex.EncodeToString(digest[:]) + `"}`; string(data) != want {
				s.t.Errorf("last message %q, want %q", data, want)
			}
			_ = conn.Close(websocket.StatusNormalClosure, "")
			return got.Bytes()
		default:
			got.Write(data)
		}
	}
}

func TestFilesAreStreamedBothWays(t *testing.T) {
	t.Parallel()
	s := newStreams(t, time.Minute)
	content := make([]byte, 2*streamChunk+12345)
	_, _ = rand.Read(content)
	for name, data := range map[string][]byte{"large": content, "one chunk": content[:streamChunk], "it's \"small\"\n": content[:1000], "empty": nil} {
		target := s.dir + "/" + name
		job, secret := s.offer("upload", target)
		v := s.as("alice", "GET", "/compute/clustera/jobs/"+job, "").answers(200, jobsShape)
		if state := v["jobs"].([]any)[0].(map[string]any)["status"].(map[string]any)["state"]; state != "RUNNING" {
			t.Errorf("%q: before the client comes it is %v; he waits for RUNNING", name, state)
		}
		s.send(s.enter(secret), sent(data))
		if state := s.state(job); state != "COMPLETED" {
			t.Errorf("%q: upload %s", name, state)
		}
		if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%q: %d bytes arrived of %d, %v", name, len(got), len(data), err)
		}
		meta := s.as("alice", "GET", "/compute/clustera/jobs/"+job+"/metadata", "")
		var m struct {
			Jobs []struct{ StandardOutput string }
		}
		if err := json.Unmarshal([]byte(meta.body), &m); err != nil || len(m.Jobs) != 1 {
			t.Fatalf("metadata %s: %v", meta.body, err)
		}
		if log, err := os.ReadFile(m.Jobs[0].StandardOutput); err != nil || string(log) != "File was successfully uploaded\n" {
			t.Errorf("%q: log %q, %v", name, log, err)
		}
		job, secret = s.offer("download", target)
		if got := s.fetch(s.enter(secret)); !bytes.Equal(got, data) {
			t.Errorf("%q: %d bytes came back", name, len(got))
		}
		if state := s.state(job); state != "COMPLETED" {
			t.Errorf("%q: download %s", name, state)
		}
	}
}

func TestAStreamThatIsNotAWholeFileChangesNothing(t *testing.T) {
	t.Parallel()
	s := newStreams(t, time.Minute)
	data := bytes.Repeat([]byte("x"), 1000)
	text := func(s string) message { return message{websocket.MessageBinary, []byte(s)} }
	whole := sent(data)
	for name, list := range map[string][]message{
		"another sum":       {whole[0], whole[1], text(`{"type": "eof", "sha256_hash": "00"}`)},
		"no end":            whole[:2],
		"too few bytes":     {whole[0], {websocket.MessageBinary, data[:999]}, whole[2]},
		"too many bytes":    {whole[0], {websocket.MessageBinary, append(data[:1000:1000], 'y')}, whole[2]},
		"bytes for the end": {whole[0], whole[1], whole[1]},
		"no beginning":      whole[1:],
		"no JSON":           {text("{")},
		"negative size":     {text(`{"type": "init", "num_chunks": 1, "file_size": -1}`)},
		"too large":         {text(fmt.Sprintf(`{"type": "init", "num_chunks": 9, "file_size": %d}`, s.streaming.MaxUpload+1))},
		"an endless word":   {{websocket.MessageBinary, bytes.Repeat([]byte(" "), 1<<20)}},
	} {
		target := s.dir + "/" + name
		job, secret := s.offer("upload", target)
		s.send(s.enter(secret), list)
		if state := s.state(job); state != "FAILED" {
			t.Errorf("%s: %s", name, state)
		}
	}
	if left := s.root(`ls -A "$1"`, s.dir); left != "" {
		t.Errorf("these are left: %s", left)
	}
}

func TestAStreamIsForOneClientOnce(t *testing.T) {
	t.Parallel()
	s := newStreams(t, time.Minute)
	if v := s.as("alice", "GET", "/status/systems", ""); !strings.Contains(v.body, `"data_transfer":{"serviceType":"streamer","pypiIndexUrl":null,"host":null,"portRange":[`) {
		t.Errorf("status of systems: %s", v.body)
	}
	job, secret := s.offer("upload", s.dir+"/f")
	if status, _ := s.knock(secret, "127.0.0.2"); status != http.StatusForbidden {
		t.Errorf("another address gets %d", status)
	}
	if status, _ := s.knock("", "127.0.0.1"); status != http.StatusForbidden {
		t.Errorf("no secret gets %d", status)
	}
	for _, who := range []string{"bob", "carol"} {
		if a := s.as(who, "GET", "/compute/clustera/jobs/"+job, ""); a.status == http.StatusOK {
			t.Errorf("%s sees it: %s", who, a.body)
		}
	}
	conn := s.enter(secret)
	if status, _ := s.knock(secret, "127.0.0.1"); status != http.StatusForbidden {
		t.Errorf("the second client gets %d", status)
	}
	s.send(conn, sent([]byte("mine")))
	if state := s.state(job); state != "COMPLETED" {
		t.Error(state)
	}
	for path, status := range map[string]int{"/streams/" + secret: 403, "/streams/x": 403, "/streams": 404} {
		if a := s.as("", "GET", path, ""); a.status != status || strings.Contains(a.body, secret) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := s.as("alice", "POST", "/filesystem/clustera/transfer/upload", s.request(s.dir+"/f")); a.status != 400 || !strings.Contains(a.body, "File exists") {
		t.Errorf("over a file that there is: %d %s", a.status, a.body)
	}
	if a := s.as("alice", "POST", "/filesystem/clustera/transfer/download", s.request("/etc/passwd")); a.status != 400 {
		t.Errorf("outside the file systems: %d %s", a.status, a.body)
	}
}

func TestAStreamCanBeCancelledAndLapses(t *testing.T) {
	t.Parallel()
	s := newStreams(t, time.Minute)
	waits, secret := s.offer("upload", s.dir+"/waits")
	runs, other := s.offer("upload", s.dir+"/runs")
	conn := s.enter(other)
	if err := conn.Write(t.Context(), websocket.MessageBinary, []byte(`{"type": "init", "num_chunks": 1, "file_size": 5}`)); err != nil {
		t.Fatal(err)
	}
	for _, job := range []string{waits, runs} {
		if a := s.as("alice", "DELETE", "/compute/clustera/jobs/"+job, ""); a.status != http.StatusNoContent {
			t.Errorf("cancelling: %d %s", a.status, a.body)
		}
		if state := s.state(job); state != "CANCELLED" {
			t.Error(state)
		}
	}
	if status, _ := s.knock(secret, "127.0.0.1"); status != http.StatusForbidden {
		t.Errorf("after it was cancelled the door answers %d", status)
	}
	if _, _, err := conn.Read(t.Context()); err == nil {
		t.Error("the connection goes on")
	}
	for i := range 17 {
		a := s.as("alice", "POST", "/filesystem/clustera/transfer/upload", s.request(fmt.Sprint(s.dir, "/", i)))
		if want := map[bool]int{true: 201, false: 429}[i < 16]; a.status != want {
			t.Errorf("offer %d: %d %s", i, a.status, a.body)
		}
	}

	short := newStreams(t, time.Nanosecond)
	job, secret := short.offer("upload", short.dir+"/f")
	if status, _ := short.knock(secret, "127.0.0.1"); status != http.StatusForbidden {
		t.Errorf("too late, and the door answers %d", status)
	}
	if state := short.state(job); state != "TIMEOUT" {
		t.Error(state)
	}
}

// TestAStreamOfSomebodyWhoWasRevokedMeanwhileIsRefused: their ticket says who they are, and no
// token is asked for.
func TestAStreamOfSomebodyWhoWasRevokedMeanwhileIsRefused(t *testing.T) {
	t.Parallel()
	s := newStreams(t, time.Minute)
	target := s.dir + "/late"
	job, secret := s.offer("upload", target)
	act := revocation.Act{Kind: revocation.User, Value: "alice"}
	if _, err := s.revoked.Revoke(t.Context(), revocation.Actor{}, act, nil); err != nil {
		t.Fatal(err)
	}
	s.as("alice", "GET", "/compute/clustera/jobs/"+job, "").fails(http.StatusForbidden, "revoked")
	status, location := s.knock(secret, "127.0.0.1")
	if status != http.StatusTemporaryRedirect {
		t.Fatalf("the door answers %d", status)
	}
	conn, resp, err := websocket.Dial(t.Context(), location, &websocket.DialOptions{HTTPClient: client}) //nolint:bodyclose // the library has read it
	if err == nil {
		conn.CloseNow()
	}
	if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("the stream begins: %v, %+v", err, resp)
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("the file was written")
	}
	if _, err := s.revoked.Lift(t.Context(), revocation.Actor{}, act); err != nil {
		t.Fatal(err)
	}
	if state := s.state(job); state != "FAILED" {
		t.Errorf("the job is %s", state)
	}
}
