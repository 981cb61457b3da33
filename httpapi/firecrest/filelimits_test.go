package firecrest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/executor"
	"sallyport/httpapi/firecrest"
	"sallyport/identity"
)

// opsOf are the calls for files of a system, with inputs that are complete.
func opsOf(system string) []string {
	var list []string
	for _, op := range []string{
		"GET ls", "GET stat", "GET head", "GET tail", "GET view", "GET checksum", "GET file", "GET download", "DELETE rm", "POST upload",
		"PUT chmod", "PUT chown", "POST mkdir", "POST symlink", "POST compress", "POST extract",
	} {
		method, name, _ := strings.Cut(op, " ")
		list = append(list, method+" /filesystem/"+system+"/ops/"+name+"?path=/home/x")
	}
	return list
}

// ask sends one of these calls.
func (s *site) ask(login, call string) answer {
	s.t.Helper()
	method, path, _ := strings.Cut(call, " ")
	if strings.Contains(path, "upload") {
		body, mediaType := form(s.t, "f", "x")
		return s.as(login, method, path, body, "Content-Type", mediaType)
	}
	return s.as(login, method, path, `{"path":"/home/x","mode":"600","linkPath":"/home/l","targetPath":"/home/t"}`)
}

func TestEveryCallForFilesTellsWhyItCouldNotBegin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		phrase string
	}{
		{executor.ErrUnavailable, 503, "The ssh service for the requested system is unhealthy."},
		{executor.ErrLoginRefused, 424, "Unable to establish SSH connection."},
		{executor.ErrHostKey, 424, "Unable to establish SSH connection."},
		{executor.ErrBusy, 429, "Nothing was done"},
		{executor.ErrOutcomeUnknown, 424, "SSH connection Reset."},
		{context.DeadlineExceeded, 408, "Command execution timeout limit exceeded."},
		{identity.ErrNoLogin, 403, ""},
	} {
		s := serve(t, firecrest.Config{Commands: refusing{err: c.err}, Systems: []firecrest.System{{
			Name: "ClusterA", FileSystems: []firecrest.FileSystem{{Path: "/home", DataType: "users"}},
		}}})
		for _, call := range opsOf("clustera") {
			s.ask("alice", call).fails(c.status, c.phrase)
			s.ask("", call).fails(401, "Not authenticated")
			s.ask("mallory", call).fails(403, "")
		}
	}
	// Weakness 5: without file systems nothing is allowed.
	s := bare(t, nil)
	for _, call := range opsOf("clustera") {
		s.ask("alice", call).fails(400, "does not match any of the defined filesystem paths")
	}
}

// pyfirecrest takes a job for what ends with 408.
func TestWhatTakesTooLongIsEnded(t *testing.T) {
	t.Parallel()
	s := newSlowSite(t, "internal-sftp", 0, time.Second)
	s.root(`mkfifo "$1/pipe" && mkdir "$1/out" && chown alice "$1/pipe" "$1/out"`, s.dir)
	began := time.Now()
	s.send("POST", "extract", map[string]any{"path": s.dir + "/pipe", "targetPath": s.dir + "/out"}).fails(408, "Command execution timeout limit exceeded.")
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("took %v", took)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // real processes
		if left := s.root(`pgrep -f "$1" -u alice || true`, filepath.Base(s.dir)); left == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Error("the command goes on")
			break
		}
	}
}

// Weakness 36: nothing is in memory as a whole.
func TestMemoryDoesNotGrowWithFiles(t *testing.T) {
	const size, clients = 8 << 20, 6
	s := newSlowSite(t, "internal-sftp", size, 2*time.Second) // which a client may exceed
	s.root(`yes text | head -c "$2" >"$1/f" && chown -R alice "$1"`, s.dir, fmt.Sprint(size))
	token, err := s.issuer.Mint(map[string]any{"sub": "sub-alice", "preferred_username": "alice"})
	if err != nil {
		t.Fatal(err)
	}
	send := func(method, path, mediaType string, body io.Reader) error {
		r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, body)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", mediaType)
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		n, err := io.Copy(io.Discard, resp.Body)
		if resp.StatusCode >= 300 || method == "GET" && n < size {
			return fmt.Errorf("%s: %d, %d bytes, %w", path, resp.StatusCode, n, err)
		}
		return err
	}
	done, most := make(chan struct{}), uint64(0)
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	var watch, work sync.WaitGroup
	watch.Go(func() {
		for {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapInuse)
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	before.HeapInuse = max(before.HeapInuse, 1<<20)
	for i := range clients {
		work.Go(func() {
			head, mediaType := form(t, fmt.Sprint("up", i), "")
			start, end, _ := strings.Cut(head, "\r\n\r\n\r\n--")
			body := io.MultiReader(strings.NewReader(start+"\r\n\r\n"), io.LimitReader(zeros{}, size), strings.NewReader("\r\n--"+end))
			for _, err := range []error{
				send("GET", opsPath+"download"+query(s.dir+"/f"), "", nil), send("GET", opsPath+"view"+query(s.dir+"/f"), "", nil),
				send("POST", opsPath+"upload"+query(s.dir), mediaType, body),
			} {
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	close(done)
	watch.Wait()
	if grown := int64(most) - int64(before.HeapInuse); grown > 4*size {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	} else {
		t.Logf("the heap has grown by %d MiB", grown>>20)
	}
}

// zeros are a file that has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
