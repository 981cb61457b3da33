package warm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// An attack is a command that tries to get bytes to another one, with what it must
// itself come back with.
type attack struct {
	line string
	want outcome
	// ends says that the worker must not be used again.
	ends bool
}

// frameOf is how a command would forge a frame, in shell: printf's text.
func frameOf(kind byte, token, body string) string {
	var hex strings.Builder
	for _, b := range []byte(fmt.Sprintf("%c%s\x00\x00\x00%c%s", kind, token, len(body), body)) {
		fmt.Fprintf(&hex, `\%03o`, b)
	}
	return hex.String()
}

func attacks(t *rapid.T) attack {
	word := rapid.StringMatching(`[a-z]{1,8}`).Draw(t, "word")
	kind := rapid.SampledFrom([]byte("HSNIAEXZC12")).Draw(t, "kind")
	forged := frameOf(kind, string(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "token")), word)
	switch rapid.IntRange(0, 14).Draw(t, "attack") {
	case 0: // frames on the streams
		raw := unescape(forged)
		return attack{line: "printf '" + forged + "'; printf '" + forged + "' >&2", want: outcome{stdout: raw, stderr: raw}}
	case 1: // NUL, and no newline
		return attack{line: `printf '\0` + word + `\0'`, want: outcome{stdout: "\x00" + word + "\x00"}}
	case 2: // megabytes without a newline
		n := rapid.IntRange(1, 3<<20).Draw(t, "bytes")
		return attack{line: fmt.Sprintf("head -c %d /dev/zero", n), want: outcome{stdout: strings.Repeat("\x00", n)}}
	case 3:
		return attack{line: "exec echo " + word, want: outcome{stdout: word + "\n"}}
	case 4:
		code := rapid.IntRange(0, 255).Draw(t, "code")
		return attack{line: fmt.Sprintf("echo %s; exit %d; echo never", word, code), want: outcome{stdout: word + "\n", code: code}}
	case 5:
		return attack{line: "echo " + word + "; kill -9 $$; echo never", want: outcome{stdout: word + "\n", signal: "KILL"}}
	case 6: // closed descriptors
		return attack{line: "echo " + word + "; exec 0<&- 1>&- 2>&-; exit 7", want: outcome{stdout: word + "\n", code: 7}}
	case 7: // a background writer that has the output open: it belongs to this command
		return attack{line: "(sleep 0.05; echo " + word + ") & exit 3", want: outcome{stdout: word + "\n", code: 3}}
	case 8: // one that writes for ever to nobody
		return attack{line: "(exec >/dev/null 2>&1 </dev/null; sleep 0.1; echo " + word + ") & echo done", want: outcome{stdout: "done\n"}}
	case 9: // the inherited descriptors are pipes of this command alone
		return attack{line: `ls /proc/self/fd | tr '\n' ' '`, want: outcome{stdout: "0 1 2 3 "}}
	case 10: // the end of the input cannot be undone for others
		return attack{line: "cat; (echo " + word + " >/proc/self/fd/0) 2>/dev/null; true", want: outcome{}}
	case 11: // stop the group
		return attack{line: "(sleep 0.05; kill -CONT 0) & kill -STOP $$; echo " + word, want: outcome{stdout: word + "\n"}}
	case 12: // forge into the worker's channel
		return attack{line: "printf '" + forged + "' >/proc/$PPID/fd/1; sleep 2", want: outcome{lost: true}, ends: true}
	case 13:
		return attack{line: "echo " + word + "; kill -9 $PPID; sleep 2", want: outcome{lost: true}, ends: true}
	default: // read the worker's commands
		return attack{line: "kill -STOP $PPID; (sleep 0.05; kill -CONT $PPID) & wait; echo " + word, want: outcome{stdout: word + "\n"}}
	}
}

func unescape(octal string) string {
	var b strings.Builder
	for _, digits := range strings.Split(octal, `\`)[1:] {
		var v byte
		_, _ = fmt.Sscanf(digits, "%o", &v)
		b.WriteByte(v)
	}
	return b.String()
}

// TestNoOutputReachesAnotherCommand runs hostile commands one after the other, each
// followed by an honest one, which must see nothing of them.
func TestNoOutputReachesAnotherCommand(t *testing.T) {
	t.Parallel()
	var w *Worker
	rapid.Check(t, func(rt *rapid.T) {
		if w == nil {
			w, _ = startShell(t, script)
		}
		a := attacks(rt)
		got := run(w, Command{Line: a.line}, nil)
		if a.ends {
			if !got.lost || strings.Contains(got.stdout, "\x00") {
				rt.Fatalf("%s: got %.300v", a.line, got)
			}
			select {
			case <-w.Done():
			case <-time.After(10 * time.Second):
				rt.Fatalf("%s: the worker goes on", a.line)
			}
			w = nil
			return
		}
		if got != a.want {
			rt.Fatalf("%s\ngot  %.300v\nwant %.300v", a.line, got, a.want)
		}
		if !w.Idle() {
			rt.Fatalf("%s: the worker takes no further command", a.line)
		}
		if got := run(w, Command{Argv: []string{"echo", "honest"}}, nil); got != (outcome{stdout: "honest\n"}) {
			rt.Fatalf("after %s: got %.300v", a.line, got)
		}
	})
}
