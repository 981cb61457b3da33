package audit

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Any bit of the log or of its head that flips is found.
func FuzzFlippedBit(f *testing.F) {
	requireSeeds(f)
	origin := privateDir(f, f.TempDir())
	fill(f, origin, 30, minMaxBytes)
	names := []string{fileName(1), fileName(2), fileName(3), headName}
	f.Fuzz(func(t *testing.T, file uint8, bit uint32) {
		dir := t.TempDir()
		for i, name := range names {
			b := bytes.Clone(read(t, origin, name))
			if i == int(file)%len(names) {
				n := int(bit) % (8 * len(b))
				b[n/8] ^= 1 << (n % 8)
			}
			write(t, dir, name, b)
		}
		if _, err := Verify(dir); !errors.Is(err, ErrChain) {
			t.Errorf("Verify = %v, want ErrChain", err)
		}
	})
}

// Whatever an event holds becomes one line, which says the same when read back.
func FuzzEventIsOneLine(f *testing.F) {
	requireSeeds(f)
	f.Fuzz(func(t *testing.T, reason, detail string) {
		members, err := membersOf(Request{ID: detail}, Event{Action: ExecEnd, Reason: reason, Detail: map[string]string{"d": detail}})
		if err != nil {
			t.Fatal(err)
		}
		line, at := start().appendLine(nil, time.Now(), members)
		if bytes.IndexByte(line, '\n') != len(line)-1 || len(line) > maxLineBytes {
			t.Fatalf("not one line: %q", line)
		}
		p, err := parseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := start().follow(p, 1); err != nil || got != at {
			t.Fatalf("follow = %v, %v; want %v", got, err, at)
		}
		got := decodeLine(t, line)
		for name, want := range map[string]string{"event.reason": reason, "sallyport.d": detail, "http.request.id": detail} {
			want = string([]rune(cut(want, mostOf(name)))) // bytes that are not UTF-8 become U+FFFD
			if value, _ := got[name].(string); value != want {
				t.Errorf("%s = %q, want %q", name, value, want)
			}
		}
		if strings.ContainsFunc(string(line[:len(line)-1]), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("line holds a control character: %q", line)
		}
	})
}

// What parses as a line is exactly what sealing its bytes gives.
func FuzzHostileLine(f *testing.F) {
	requireSeeds(f)
	f.Fuzz(func(t *testing.T, body []byte, sealed bool) {
		line := bytes.Clone(body)
		if sealed {
			line, _ = seal(line, 0)
		}
		p, err := parseLine(line)
		if err != nil {
			return
		}
		again, hash := seal(bytes.Clone(line[:len(line)-len(hashMember)-hashHex-len(lineEnd)]), 0)
		if !bytes.Equal(again, line) || hash != p.hash {
			t.Errorf("%q was taken, but sealing gives %q", line, again)
		}
	})
}

// requireSeeds fails a fuzz target whose checked-in seeds are gone: it would pass
// while testing nothing.
func requireSeeds(f *testing.F) {
	f.Helper()
	seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", f.Name(), "*"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds for %s: %v", f.Name(), err)
	}
}
