package failure

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/faultproxy"
)

// soakTime is how long faults come: SALLYPORT_SOAK, or a short while.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SALLYPORT_SOAK")
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second || d > 4*time.Hour {
		t.Fatalf("SALLYPORT_SOAK=%q is no time from 1s to 4h", text)
	}
	return d
}

// TestSoak mixes all faults under load, and checks at the end that every request was
// answered once, that no command ran twice, that ledger and audit log agree with what
// ran, and that memory and goroutines are back where they were.
func TestSoak(t *testing.T) {
	s := start(t, option{commands: true})
	s.warmUp()
	before := s.usage()

	var load load
	length := soakTime(t)
	until := time.Now().Add(length)
	for i := range 16 {
		load.running.Go(func() { load.run(s, i, until) })
	}
	faults, killed := s.trouble(t, until)
	load.running.Wait()
	s.calm()
	s.recovers("own")
	s.recovers("warm")
	s.judge(load.answers)
	s.clean()

	counts := make(map[string]int)
	for _, a := range load.answers {
		counts[strings.TrimSpace(fmt.Sprint(a.status, " ", a.code))]++
	}
	t.Logf("%d requests in %v, %d faults %v: answers %v", len(load.answers), length, len(faults), faults, counts)
	if lost := counts["0"]; lost > 0 && killed == 0 && !slices.Contains(faults, "drain") {
		t.Errorf("%d requests without an answer, and the service was always there", lost)
	}
	if counts["200"] < len(load.answers)/4 {
		t.Error("hardly any request was served")
	}
	s.compareRecords(load.answers, killed)
	s.eventually("goroutines and connections are back", func() bool {
		now := s.usage()
		return now.goroutines <= before.goroutines+10 && now.connections == 0
	})
	if now := s.usage(); now.goroutines > before.goroutines+10 || now.heap > 3*before.heap+32e6 {
		t.Errorf("before: %+v\nafter:  %+v", before, now)
	} else {
		t.Logf("before: %+v, after: %+v", before, now)
	}
}

// load is what callers do.
type load struct {
	running sync.WaitGroup
	mu      sync.Mutex // guards answers
	answers []answer
}

func (l *load) run(s *site, caller int, until time.Time) {
	for time.Now().Before(until) {
		system := []string{"own", "warm"}[rand.IntN(2)]
		command := []string{
			"true", "echo hello", "sleep 0.2", "sleep 2", "exit 3", "head -c 200000 /dev/zero", "kill -9 $$",
			"(sleep 0.3; echo late) & echo early", "cat >/dev/null",
		}[rand.IntN(9)]
		a := s.exec(caller, system, command)
		l.mu.Lock()
		l.answers = append(l.answers, a)
		l.mu.Unlock()
		if !a.ran() {
			time.Sleep(100 * time.Millisecond) // as a client that was refused would
		}
	}
}

// trouble makes one fault after the other until the time is over.
func (s *site) trouble(t *testing.T, until time.Time) (faults []string, killed int) {
	t.Helper()
	menu := []struct {
		name string
		do   func()
	}{
		{"cut", s.network.Cut},
		{"latency", func() { s.network.Set(faultproxy.Fault{Latency: 50 * time.Millisecond}) }},
		{"hole", func() { s.network.Set(faultproxy.Fault{Swallow: true}) }},
		{"vanish", s.network.Abandon},
		{"refuse", func() {
			s.network.Set(faultproxy.Fault{Refuse: true})
			s.network.Cut()
		}},
		{"slow line", func() { s.network.Set(faultproxy.Fault{BytesPerSecond: 200_000}) }},
		{"reboot", func() { s.must(s.node.Restart(t.Context())) }},
		{"fewer sessions", func() { s.must(s.node.Reload(t.Context(), "MaxSessions "+strconv.Itoa(1+rand.IntN(4)))) }},
		{"freeze", func() { s.must(s.node.Freeze()) }},
		{"stop", func() {
			s.must(s.service.cmd.Process.Signal(syscall.SIGSTOP))
			time.Sleep(2 * time.Second)
			s.must(s.service.cmd.Process.Signal(syscall.SIGCONT))
		}},
		{"drain", func() { s.stop(); s.serve() }},
		{"kill", func() {
			s.kill()
			killed++
			s.serve()
		}},
	}
	order := rand.Perm(len(menu))
	for i := 0; time.Now().Before(until); i++ {
		fault := menu[order[i%len(order)]]
		faults = append(faults, fault.name)
		fault.do()
		time.Sleep(500*time.Millisecond + rand.N(2*time.Second))
		s.calm()
		time.Sleep(rand.N(2 * time.Second))
	}
	return faults, killed
}

// calm ends the faults that last.
func (s *site) calm() {
	s.network.Set(faultproxy.Fault{})
	s.must(s.node.Thaw())
}

// warmUp has everything done once, so that what is made once is there.
func (s *site) warmUp() {
	for user := range users {
		s.exec(user, "own", "true")
		s.exec(user, "warm", "true")
	}
	s.eventually("connections are idle no more", func() bool { return s.usage().connections == 0 })
}

// A usage is what the service holds.
type usage struct {
	goroutines, connections int
	heap                    float64
}

func (s *site) usage() usage {
	s.t.Helper()
	http.DefaultClient.CloseIdleConnections()
	s.client.CloseIdleConnections()
	res, err := http.Get("http://" + s.metrics + "/metrics")
	s.must(err)
	defer res.Body.Close()
	var u usage
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		number, _ := strconv.ParseFloat(value, 64)
		switch {
		case name == "go_goroutines":
			u.goroutines = int(number)
		case name == "go_memstats_heap_inuse_bytes":
			u.heap = number
		case strings.HasPrefix(name, "sallyport_pool_connections{"):
			u.connections += int(number)
		}
	}
	return u
}

// compareRecords holds the audit log and the ledger against what callers saw and what
// ran: each command that ran was recorded once before, and has at most one end; each
// certificate that was issued is in the ledger once.
func (s *site) compareRecords(answers []answer, killed int) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.data(), "audit", "*.jsonl"))
	s.must(err)
	starts, ends, issued := make(map[string]int), make(map[string]int), make(map[string]int)
	commands, commandOf := make(map[int]int), make(map[string]int)
	for _, file := range files {
		text, err := os.ReadFile(file)
		s.must(err)
		for line := range strings.Lines(string(text)) {
			var e map[string]any
			s.must(json.Unmarshal([]byte(line), &e))
			id, _ := e["sallyport.exec_id"].(string)
			switch e["event.action"] {
			case "exec.start":
				starts[id]++
				var n int
				if command, ok := e["sallyport.command"].(string); ok {
					_, _ = fmt.Sscanf(command, "echo %d >>ran", &n)
				}
				commands[n]++
				commandOf[id] = n
			case "exec.end":
				ends[id]++
				if e["event.reason"] == "no session" {
					commands[commandOf[id]]-- // nothing was sent
				}
			case "certificate.issued":
				serial, _ := e["sallyport.serial"].(string)
				issued[serial]++
			}
		}
	}
	for user := range users {
		for _, n := range s.ran(user) {
			if commands[n] != 1 {
				s.t.Errorf("command %d ran and was recorded %d times", n, commands[n])
			}
		}
	}
	for id, n := range starts {
		if n != 1 || ends[id] > 1 {
			s.t.Errorf("start %s was recorded %d times, its end %d times", id, n, ends[id])
		}
	}
	// What ran when the service was killed has no end, nor what ended in the 20 ms before.
	if open := len(starts) - len(ends); open < 0 || killed == 0 && open > 0 || open > 64*killed {
		s.t.Errorf("%d starts have no end, %d kills", open, killed)
	}
	var ledger []struct{ Serial string }
	s.must(json.Unmarshal([]byte(s.sallyport("ca", "certificates", "--config", s.config(), "--limit", "10000", "-o", "json")), &ledger))
	listed := make(map[string]int)
	for _, c := range ledger {
		listed[c.Serial]++
	}
	for serial, n := range issued {
		if n != 1 || listed[serial] != 1 {
			s.t.Errorf("certificate %s was recorded %d times and is in the ledger %d times", serial, n, listed[serial])
		}
	}
	if len(issued) == 0 {
		s.t.Error("no certificate is on record")
	}
	s.t.Logf("%d starts, %d ends, %d certificates on record, %d answers", len(starts), len(ends), len(issued), len(answers))
}
