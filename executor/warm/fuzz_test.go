package warm

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// frames puts frames one after the other; '*' stands for the token of the command.
func frames(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = appendFrame(b, p[0], token(bytes.Repeat([]byte("*"), tokenSize)), p[1:])
	}
	return b
}

// FuzzWorkerSays has a worker say anything while a command runs: nothing panics or
// hangs, and output comes only from well-formed frames of that command.
func FuzzWorkerSays(f *testing.F) {
	f.Add(frames("S\x00\x00\x00\x01", "1out", "2err", "X\x00\x00\x00\x00\x03", "Z"))
	f.Add(frames("S\x00\x00\x00\x01", "A\x00\x00\x00\x05", "X\x01\x00\x00\x00\x0f", "Z", "Z"))
	f.Add(frames("N12", "Z"))
	f.Add(frames("1early"))
	f.Add(frames("S\x00\x00\x00\x01", "S\x00\x00\x00\x01"))
	f.Add(append(frames("S\x00\x00\x00\x01"), 'X', 0xff, 0xff))
	f.Fuzz(func(t *testing.T, says []byte) {
		near, far := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			defer far.Close()
			first := make([]byte, len(preamble)-len("%x")+2*tokenSize+len(script))
			if _, err := io.ReadFull(far, first); err != nil {
				return
			}
			nonce := greeting(first)
			_, _ = far.Write(appendFrame(nil, kindHello, nonce, "1 3.6"))
			var buffer []byte
			if _, err := readFrame(far, &buffer); err != nil { // the command
				return
			}
			wg.Go(func() { _, _ = io.Copy(io.Discard, far) })
			_, _ = far.Write(says)
		})
		w, err := Start(t.Context(), near, wg.Go)
		if err != nil {
			t.Fatal(err)
		}
		j := w.Job()
		j.token = token(bytes.Repeat([]byte("*"), tokenSize))
		if ok, _ := j.SendRequest("exec", true, Command{Line: "x", Input: true}.Payload()); ok {
			got := finish(j, strings.NewReader("input"))
			if len(got.stdout)+len(got.stderr) > max(0, len(says)-2*headSize) {
				t.Errorf("%d bytes of output", len(got.stdout)+len(got.stderr))
			}
		}
		w.Close()
		wg.Wait()
	})
}

// greeting is the nonce in the first line of a script.
func greeting(script []byte) token {
	var t token
	const at = len("NONCE = bytes.fromhex('")
	for i := range t {
		t[i] = unhex(script[at+2*i])<<4 | unhex(script[at+2*i+1])
	}
	return t
}

func unhex(c byte) byte { return byte(strings.IndexByte("0123456789abcdef", c)) }

// TestWorkerTakesNoNonsense sends frames of any kind to a real worker: it answers
// those that are right, and ends at the first that is not, with what it runs.
func TestWorkerTakesNoNonsense(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w, s := startShell(t, script)
		kind := rapid.SampledFrom([]byte("CIEAKHZ1\x00\xff")).Draw(rt, "kind")
		body := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "body")
		if kind == kindCommand && rapid.Bool().Draw(rt, "near") { // counts and sizes that lie
			body = Command{Argv: []string{"echo", "x"}}.Payload()
			binary.BigEndian.PutUint32(body[4*rapid.IntRange(0, 1).Draw(rt, "field"):], rapid.Uint32().Draw(rt, "lie"))
		}
		text := appendFrame(nil, kind, newToken(), body)
		if rapid.Bool().Draw(rt, "huge") {
			binary.BigEndian.PutUint32(text[1+tokenSize:], rapid.Uint32Min(maxFrame+1).Draw(rt, "size"))
		}
		j := w.Job()
		if running := rapid.Bool().Draw(rt, "running"); running {
			if ok, err := j.SendRequest("exec", true, Command{Line: "exec sleep 60"}.Payload()); !ok {
				rt.Fatal(err)
			}
		}
		if _, err := s.Write(text); err != nil {
			rt.Fatal(err)
		}
		_ = s.Writer.(io.Closer).Close() //nolint:forcetypeassert // a pipe
		select {
		case <-w.Done():
		case <-time.After(20 * time.Second):
			rt.Fatal("the worker goes on")
		}
		if got := finish(j, nil); !got.lost && got.signal == "" {
			rt.Fatalf("a command came to an end: %v", got)
		}
	})
}

// TestNoPythonIsNoWorker: what is no worker is none, whatever it says.
func TestNoPythonIsNoWorker(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{
		"nothing": "", "a banner": "Welcome!\n", "a frame of another": string(frames("H1 3.11")), "much": strings.Repeat("x", 1<<20),
	} {
		near, far := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(io.Discard, far) })
		wg.Go(func() {
			_, _ = io.WriteString(far, says)
			_ = far.Close()
		})
		if _, err := Start(t.Context(), near, wg.Go); err == nil {
			t.Errorf("%s: there is a worker", name)
		}
		wg.Wait()
	}
	near, far := net.Pipe() // says nothing and takes nothing
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	if _, err := Start(ctx, near, wg.Go); err == nil {
		t.Error("there is a worker")
	}
	_ = far.Close()
	wg.Wait()
}
