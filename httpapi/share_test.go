package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"sallyport/executor"
)

var alice, bob = callerKey{"idp", "alice"}, callerKey{"idp", "bob"}

// collected is a collector with some output, as much as it wants.
func collected(text string) *collector {
	c := &collector{memory: newShare(1<<30, 1<<30), caller: alice, limit: 1 << 30}
	_, _ = io.Copy(c, strings.NewReader(text))
	return c
}

// json is what a client reads of the stream.
func (c *collector) json(t *testing.T, encoding string) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.writeString(&b, encoding); err != nil {
		t.Fatal(err)
	}
	var text string
	if err := json.Unmarshal(b.Bytes(), &text); err != nil {
		t.Fatalf("%v: %.100q", err, b.Bytes())
	}
	return text
}

func TestOneCallerCannotTakeAll(t *testing.T) {
	t.Parallel()
	s := newShare(10, 6)
	for _, step := range []struct {
		caller callerKey
		take   int64
		want   bool
	}{
		{alice, 6, true}, {alice, 1, false}, {bob, 4, true}, {bob, 1, false}, // nothing is left
		{alice, -3, true}, {bob, 2, true}, {alice, 2, false}, {alice, 1, true},
	} {
		if step.take < 0 {
			s.give(step.caller, -step.take)
		} else if got := s.take(step.caller, step.take); got != step.want {
			t.Fatalf("%v takes %d: %t, want %t", step.caller, step.take, got, step.want)
		}
	}
	s.give(alice, 4)
	s.give(bob, 6)
	if s.left != 10 || len(s.held) != 0 {
		t.Errorf("after all was given back: %d left, %v held", s.left, s.held)
	}
}

func TestRequestsOfOneCallerAboveTheBoundAreRefused(t *testing.T) {
	t.Parallel()
	running, finish := make(chan struct{}), make(chan struct{})
	s := start(t, func(c *Config) {
		c.MaxInFlight, c.MaxInFlightPerCaller = 8, 1
		c.Commands = fakeRunner{func(context.Context, executor.Command) (executor.Result, error) {
			close(running)
			<-finish
			return executor.Result{Start: started}, nil
		}}
	})
	first := make(chan answer)
	go func() { first <- s.do("POST", execPath, `{"command":"x"}`) }()
	<-running
	a := s.do("GET", "/v1/whoami", "")
	a.wantProblem(t, http.StatusTooManyRequests, "caller_overloaded")
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	close(finish)
	if a := <-first; a.status != http.StatusOK {
		t.Errorf("the first one: %d", a.status)
	}
	if a := s.do("GET", "/v1/whoami", ""); a.status != http.StatusOK {
		t.Errorf("after the first one: %d", a.status)
	}
}

// A pentest killed the service with 20 answers of 2 x 8 MiB of NUL bytes, which
// JSON writes as six bytes each.
func TestOutputOfAnswersIsBoundedInAll(t *testing.T) {
	t.Parallel()
	memory := newShare(10*chunkBytes, 4*chunkBytes)
	collect := func(caller callerKey, n int) *collector {
		c := &collector{memory: memory, caller: caller, limit: 1 << 30}
		if wrote, err := c.Write(make([]byte, n)); wrote != n || err != nil {
			t.Fatalf("Write = %d, %v", wrote, err)
		}
		return c
	}
	greedy := collect(alice, 100*chunkBytes)
	if greedy.size != (freeChunks+4)*chunkBytes || !greedy.truncated {
		t.Errorf("one caller holds %d bytes, truncated %t", greedy.size, greedy.truncated)
	}
	small := collect(alice, chunkBytes)
	if small.size != chunkBytes || small.truncated {
		t.Errorf("a small output of the same caller: %d bytes, truncated %t", small.size, small.truncated)
	}
	other := collect(bob, 3*chunkBytes)
	if other.size != 3*chunkBytes || other.truncated {
		t.Errorf("another caller: %d bytes, truncated %t", other.size, other.truncated)
	}
	for _, c := range []*collector{greedy, small, other} {
		c.release()
	}
	if memory.left != 10*chunkBytes {
		t.Errorf("%d bytes did not come back", 10*chunkBytes-memory.left)
	}
}

func TestTheLimitOfAnAnswerIsExact(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{1, chunkBytes - 1, chunkBytes, chunkBytes + 1, 3*chunkBytes + 5} {
		for _, size := range []int64{limit - 1, limit, limit + 1, 2 * limit} {
			c := &collector{memory: newShare(1<<30, 1<<30), caller: alice, limit: limit}
			text := strings.Repeat("x", int(size))
			for rest := text; rest != ""; {
				n := min(len(rest), 1+rand.IntN(chunkBytes))
				_, _ = c.Write([]byte(rest[:n]))
				rest = rest[n:]
			}
			if c.size != min(limit, size) || c.truncated != (size > limit) || len(c.json(t, encodingText)) != int(c.size) {
				t.Errorf("limit %d, output %d: kept %d, truncated %t", limit, size, c.size, c.truncated)
			}
		}
	}
}

func TestLongOutputOfControlCharactersGoesAsBase64(t *testing.T) {
	t.Parallel()
	none := collected("")
	for name, c := range map[string]struct{ text, encoding string }{
		"short, with colours": {strings.Repeat("\x1b[31mred\x1b[0m\n", 100), encodingText},
		"long text":           {strings.Repeat("a line with \"quotes\" and ü\n", 10_000), encodingText},
		"long and all NUL":    {strings.Repeat("\x00", 2*chunkBytes), encodingBase64},
	} {
		out := collected(c.text)
		if got := encodingOf(out, none); got != c.encoding {
			t.Errorf("%s: %s, want %s", name, got, c.encoding)
		}
		if valid, length := out.text(); !valid || length != int64(len(bytes.TrimSpace(marshal(c.text))))-2 {
			t.Errorf("%s: %d bytes as JSON, %d were foreseen", name, len(bytes.TrimSpace(marshal(c.text)))-2, length)
		}
	}
}

func TestTextSurvivesWhereverChunksEnd(t *testing.T) {
	t.Parallel()
	for _, shift := range []int{0, 1, 2, 3} {
		text := strings.Repeat("x", shift) + strings.Repeat("€😀\n\u2028", 20_000)
		c := collected(text)
		if got := encodingOf(c, collected("")); got != encodingText {
			t.Fatalf("shift %d: %s", shift, got)
		}
		if c.json(t, encodingText) != text {
			t.Errorf("shift %d: the text came back changed", shift)
		}
	}
}

func TestWhatIsHeldForACallIsBounded(t *testing.T) {
	t.Parallel()
	memory := newShare(1<<20, 1<<18)
	o := &Output{collector{memory: memory, caller: alice}}
	held := 0
	for o.Hold(1000) {
		held += 1000
	}
	// A quarter, and what is free.
	if want := 1<<18 + freeChunks*chunkBytes; held > want || held < want-1000 {
		t.Errorf("%d bytes could be held, want %d", held, want)
	}
	if other := (&Output{collector{memory: memory, caller: bob}}); !other.Hold(1 << 17) {
		t.Error("another caller has no room")
	}
	o.Release()
	o.Release()
	if left, _ := memory.state(); left != 1<<20-1<<16 {
		t.Errorf("%d bytes are left", left)
	}
}
