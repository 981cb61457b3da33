package audit

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/sshd-config/nodesync"
)

// testKey signs as the service does.
func testKey(t testing.TB) (sign func([]byte) ([]byte, error), check SignatureCheck, public ssh.PublicKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	sign = func(text []byte) ([]byte, error) { return nodesync.Sign(signer, CheckpointNamespace, text) }
	check = func(text, signature []byte) (string, error) {
		key, err := nodesync.Verify([]ssh.PublicKey{signer.PublicKey()}, CheckpointNamespace, text, signature)
		if err != nil {
			return "", err
		}
		return ssh.FingerprintSHA256(key), nil
	}
	return sign, check, signer.PublicKey()
}

// signedLog records events with a checkpoint after every fifth, and returns its folder.
func signedLog(t *testing.T, sign func([]byte) ([]byte, error), events int, maxBytes int64) string {
	t.Helper()
	dir := privateDir(t, t.TempDir())
	l := openLog(t, Config{Dir: dir, MaxBytes: maxBytes})
	s := NewSigner(SignerConfig{Log: l, Sign: sign, Logger: slog.New(slog.DiscardHandler)})
	for i := range events {
		mustRecord(t, l, t.Context(), Event{Action: ExecStart, Login: "alice"})
		if i%5 == 4 {
			if err := s.Now(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestVerifySaysWhatIsSigned(t *testing.T) {
	t.Parallel()
	sign, check, public := testKey(t)
	dir := signedLog(t, sign, 23, 0)
	report, err := VerifyWith(dir, Check{Signature: check})
	if err != nil {
		t.Fatal(err)
	}
	// 20 events in four groups of five, a checkpoint behind each, and three more.
	if report.Checkpoints != 4 || report.Signed.Sequence != 23 || report.Sequence != 27 || report.Unsigned != 4 {
		t.Errorf("report %+v", report)
	}
	if want := ssh.FingerprintSHA256(public); report.Key != want {
		t.Errorf("signed by %q, want %q", report.Key, want)
	}
}

// An idle log is signed: what counts is how long an event has waited, not when the last one was signed.
func TestUnsignedIsAsOldAsTheFirstUnsignedEvent(t *testing.T) {
	dir := privateDir(t, t.TempDir())
	sign, check, _ := testKey(t)
	synctest.Test(t, func(t *testing.T) {
		l := openLog(t, Config{Dir: dir})
		s := NewSigner(SignerConfig{Log: l, Sign: sign, Logger: slog.New(slog.DiscardHandler)})
		unsigned := func(want time.Duration) {
			t.Helper()
			if r, err := VerifyWith(dir, Check{Signature: check}); err != nil || r.UnsignedFor != want {
				t.Errorf("unsigned for %s, want %s; %v", r.UnsignedFor, want, err)
			}
		}
		mustRecord(t, l, t.Context(), Event{Action: AdminAct})
		if err := s.Now(t.Context()); err != nil {
			t.Fatal(err)
		}
		unsigned(0)
		time.Sleep(time.Hour)
		mustRecord(t, l, t.Context(), Event{Action: AdminAct})
		unsigned(0)
		time.Sleep(time.Minute)
		mustRecord(t, l, t.Context(), Event{Action: AdminAct})
		unsigned(time.Minute)
		if err := errors.Join(s.Now(t.Context()), l.Close()); err != nil {
			t.Fatal(err)
		}
		unsigned(0)
	})
}

// Whoever rewrites without the key shows, and how.
func TestARewrittenChainShows(t *testing.T) {
	t.Parallel()
	sign, check, _ := testKey(t)
	other, _, _ := testKey(t)
	dir := signedLog(t, sign, 20, 0)
	noted := Checkpoint{}
	for _, line := range lines(t, dir, 1) {
		if bytes.Contains(line, []byte(checkpointMark)) {
			c, err := ParseCheckpoint(line)
			if err != nil {
				t.Fatal(err)
			}
			noted = c
		}
	}
	for name, test := range map[string]struct {
		edit  func(event int, members []byte) []byte // nil: the event is left out
		check Check
		want  string
	}{
		"an event is changed": {func(n int, m []byte) []byte {
			return bytes.ReplaceAll(m, []byte("alice"), []byte("mallo"))
		}, Check{Signature: check}, "signed with another hash"},
		"an event is taken out": {func(n int, m []byte) []byte {
			if n == 3 {
				return nil
			}
			return m
		}, Check{Signature: check}, "which is not before it"},
		"without a key: an event is changed": {func(n int, m []byte) []byte {
			return bytes.ReplaceAll(m, []byte("alice"), []byte("mallo"))
		}, Check{}, "signed with another hash"},
		"checkpoints of another key": {resign(t, other), Check{Signature: check}, "not allowed to sign"},
		"checkpoints are left out": {func(n int, m []byte) []byte {
			if bytes.Contains(m, []byte(checkpointMark)) {
				return nil
			}
			return m
		}, Check{Signature: check}, ""}, // the report has it: nothing is signed
		"the end is cut off, with a note": {func(n int, m []byte) []byte {
			if n > 12 {
				return nil
			}
			return m
		}, Check{Signature: check, Known: []Checkpoint{noted}}, "the end was cut off"},
		"rewritten from somewhere on, with a note": {func(n int, m []byte) []byte {
			if n > 12 && bytes.Contains(m, []byte(checkpointMark)) {
				return []byte(`,"event.action":"exec.end"`)
			}
			return m
		}, Check{Signature: check, Known: []Checkpoint{noted}}, "was noted with"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forged := rewrite(t, dir, test.edit)
			report, err := VerifyWith(forged, test.check)
			if test.want == "" {
				if err != nil || report.Checkpoints != 0 || report.Unsigned != report.Events {
					t.Errorf("report %+v, %v", report, err)
				}
				return
			}
			if !errors.Is(err, ErrChain) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Verify = %v, want one with %q", err, test.want)
			}
		})
	}
	if _, err := VerifyWith(dir, Check{Signature: check, Known: []Checkpoint{noted}}); err != nil {
		t.Errorf("the log itself: %v", err)
	}
}

// resign replaces each checkpoint by one of another key for the chain that is made.
func resign(t *testing.T, sign func([]byte) ([]byte, error)) func(int, []byte) []byte {
	return func(_ int, m []byte) []byte {
		if !bytes.Contains(m, []byte(checkpointMark)) {
			return m
		}
		r, err := parseCheckpointRecord(append([]byte("{"), append(m[1:], '}')...))
		if err != nil {
			t.Fatal(err)
		}
		signature, err := sign([]byte(r.Text))
		if err != nil {
			t.Fatal(err)
		}
		m, err = membersOf(Request{}, Event{Action: Checkpointed, Outcome: Success, Detail: map[string]string{
			"checkpoint": r.Text, "signature": string(signature),
		}})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
}

// rewrite makes a new chain of the events in dir, as somebody can who may write the
// folder: with right hashes and a right head.
func rewrite(t *testing.T, dir string, edit func(int, []byte) []byte) string {
	t.Helper()
	forged := privateDir(t, t.TempDir())
	at := start()
	var text []byte
	for i, line := range lines(t, dir, 1) {
		p, err := parseLine(append(bytes.Clone(bytes.TrimSuffix(line, []byte("\n"))), '\n'))
		if err != nil {
			t.Fatal(err)
		}
		_, members, _ := bytes.Cut(line, []byte(`,"event.action"`))
		members = append([]byte(`,"event.action"`), members[:bytes.LastIndex(members, []byte(prevMember))]...)
		if members = edit(i+1, members); members != nil {
			text, at = at.appendLine(text, p.time, members)
		}
	}
	write(t, forged, fileName(1), text)
	h, err := openHead(forged)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.writeBoth(at), h.file.Close()); err != nil {
		t.Fatal(err)
	}
	return forged
}

// What is shipped is all that the real ssh-keygen needs.
func TestSSHKeygenVerifiesACheckpoint(t *testing.T) {
	t.Parallel()
	sign, _, public := testKey(t)
	dir := signedLog(t, sign, 5, 0)
	last := lines(t, dir, 1)[5]
	r, err := parseCheckpointRecord(last)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	write(t, folder, "checkpoint.sig", []byte(r.Signature))
	write(t, folder, "signers", []byte("audit namespaces=\""+CheckpointNamespace+"\" "+string(ssh.MarshalAuthorizedKey(public))))
	verify := func(text string) ([]byte, error) {
		c := exec.CommandContext(t.Context(), "ssh-keygen", "-Y", "verify", "-f", filepath.Join(folder, "signers"), "-I", "audit",
			"-n", CheckpointNamespace, "-s", filepath.Join(folder, "checkpoint.sig"))
		c.Stdin = strings.NewReader(text)
		return c.CombinedOutput()
	}
	if out, err := verify(r.Text); err != nil {
		t.Errorf("ssh-keygen: %v\n%s", err, out)
	}
	if out, err := verify(strings.Replace(r.Text, " 5 ", " 6 ", 1)); err == nil {
		t.Errorf("ssh-keygen took a changed text:\n%s", out)
	}
}

func TestCheckpointsHaveOneSpelling(t *testing.T) {
	t.Parallel()
	good := Checkpoint{Sequence: 7, Hash: strings.Repeat("ab", 32), Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	if c, err := ParseCheckpoint(good.Text()); err != nil || c != good {
		t.Errorf("%q is parsed as %+v, %v", good.Text(), c, err)
	}
	for _, bad := range []string{
		"", "{}", `{"sallyport.checkpoint":"x","sallyport.signature":"y"}`, string(good.text(beginningWord)),
		strings.Replace(string(good.Text()), " 7 ", " 07 ", 1), strings.Replace(string(good.Text()), " 7 ", "  7 ", 1),
		string(good.Text()) + "\n", strings.ToUpper(string(good.Text())), strings.Repeat("x", 1000),
	} {
		if c, err := ParseCheckpoint([]byte(bad)); err == nil {
			t.Errorf("%q is parsed as %+v", bad, c)
		}
	}
}

// The signer signs when there is something new, at a new file, and at the end.
func TestTheSignerSignsInTime(t *testing.T) {
	dir := privateDir(t, t.TempDir())
	sign, check, _ := testKey(t)
	synctest.Test(t, func(t *testing.T) {
		l := openLog(t, Config{Dir: dir, MaxBytes: minMaxBytes})
		s := NewSigner(SignerConfig{Log: l, Sign: sign, Interval: time.Minute, Logger: slog.New(slog.DiscardHandler)})
		done := make(chan struct{})
		ctx, stop := contextWithCancel(t)
		go func() {
			defer close(done)
			s.Run(ctx)
		}()
		signed := func(want uint64) {
			t.Helper()
			synctest.Wait()
			if got := s.Status().Signed.Sequence; got != want {
				t.Errorf("signed up to event %d, want %d", got, want)
			}
		}
		time.Sleep(3 * time.Minute)
		signed(0) // nothing to sign
		mustRecord(t, l, t.Context(), Event{Action: AdminAct})
		signed(0)
		time.Sleep(time.Minute)
		signed(1)
		time.Sleep(10 * time.Minute)
		signed(1) // its own record is nothing new
		for l.Mark().File == 1 {
			mustRecord(t, l, t.Context(), Event{Action: AdminAct, Reason: strings.Repeat("x", 500)})
		}
		full := l.Mark().Sequence
		signed(full)
		mustRecord(t, l, t.Context(), Event{Action: AdminAct})
		end := l.Mark().Sequence
		stop()
		<-done
		signed(end)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if report, err := VerifyWith(dir, Check{Signature: check}); err != nil || report.Checkpoints != 3 || report.Unsigned != 1 {
		t.Errorf("report %+v, %v", report, err)
	}
}

// A key that cannot sign stops nobody, and is told.
func TestAKeyThatFailsIsCounted(t *testing.T) {
	t.Parallel()
	l := openLog(t, Config{Dir: privateDir(t, t.TempDir())})
	s := NewSigner(SignerConfig{Log: l, Logger: slog.New(slog.DiscardHandler), Sign: func([]byte) ([]byte, error) { return nil, os.ErrClosed }})
	mustRecord(t, l, t.Context(), Event{Action: AdminAct})
	s.attempt(t.Context())
	if st := s.Status(); st.Failures != 1 || st.Unsigned != 1 {
		t.Errorf("status %+v", st)
	}
}
