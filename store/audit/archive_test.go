package audit

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// archiving is a log with some full files and an archive for them.
func archiving(t *testing.T, edit func(*ArchiverConfig)) (*Log, *Archiver) {
	t.Helper()
	dir := privateDir(t, t.TempDir())
	l := openLog(t, Config{Dir: dir, MaxBytes: minMaxBytes})
	for l.Mark().File < 6 {
		mustRecord(t, l, t.Context(), Event{Action: ExecStart, Reason: strings.Repeat("x", 300)})
	}
	settleHead(t, l)
	cfg := ArchiverConfig{Log: l, Dir: filepath.Join(dir, "archive"), Logger: slog.New(slog.DiscardHandler)}
	if edit != nil {
		edit(&cfg)
	}
	a, err := NewArchiver(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l, a
}

// settleHead waits until both slots of the head name the newest file.
func settleHead(t *testing.T, l *Log) {
	t.Helper()
	for range 200 {
		if int(l.head.needed.Load()) == l.Mark().File {
			return
		}
		mustRecord(t, l, t.Context(), Event{Action: ExecEnd})
		time.Sleep(headDelay)
	}
	t.Fatal("the head does not follow")
}

func files(t *testing.T, l *Log, a *Archiver) (live, archived []int) {
	t.Helper()
	live, err := listFiles(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	if archived, err = listArchive(a.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	return live, archived
}

func TestOldFilesGoToTheArchiveAndAreVerifiedThere(t *testing.T) {
	t.Parallel()
	l, a := archiving(t, nil)
	before := verify(t, l.dir)
	if err := a.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	live, archived := files(t, l, a)
	if len(live) != 1 || len(archived) != 5 {
		t.Errorf("live %v, archived %v", live, archived)
	}
	report, err := VerifyWith(l.dir, Check{Archive: a.cfg.Dir})
	if err != nil || report.HeadHash != before.HeadHash || report.Events != before.Events || report.Archived != 5 {
		t.Errorf("report %+v, %v; before %+v", report, err, before)
	}
	if _, err := Verify(l.dir); !errors.Is(err, ErrChain) || !strings.Contains(err.Error(), "audit-000001.jsonl is missing") {
		t.Errorf("without the archive: %v", err)
	}
	// The service starts without the archive.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(a.cfg.Dir, a.cfg.Dir+".away"); err != nil {
		t.Fatal(err)
	}
	again := openLog(t, Config{Dir: l.dir, MaxBytes: minMaxBytes})
	mustRecord(t, again, t.Context(), Event{Action: AdminAct})
	if _, err := VerifyWith(l.dir, Check{Archive: a.cfg.Dir + ".away"}); err != nil {
		t.Error(err)
	}
}

// What must stay stays: until everybody has it, until it is old, and what is in use.
func TestFilesStayThatAreStillNeeded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		edit func(*ArchiverConfig)
		want int // files archived
	}{
		"not old":         {func(c *ArchiverConfig) { c.After = time.Hour }, 0},
		"nothing shipped": {func(c *ArchiverConfig) { c.Shipped = func() (Mark, bool) { return Mark{File: 1}, true } }, 0},
		"in the middle of file 3": {func(c *ArchiverConfig) {
			c.Shipped = func() (Mark, bool) { return Mark{File: 3, Offset: 100}, true }
		}, 2},
		"at the end of file 3": {func(c *ArchiverConfig) {
			c.Shipped = func() (Mark, bool) { return Mark{File: 3, Offset: 1 << 20}, true }
		}, 3},
		"no receivers": {func(c *ArchiverConfig) { c.Shipped = func() (Mark, bool) { return Mark{}, false } }, 5},
		"needed by a head": {func(c *ArchiverConfig) {
			time.Sleep(4 * headDelay) // the head is written no more
			c.Log.head.needed.Store(2)
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, a := archiving(t, test.edit)
			if err := a.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, archived := files(t, l, a); len(archived) != test.want {
				t.Errorf("archived %v, want %d", archived, test.want)
			}
			if _, err := VerifyWith(l.dir, Check{Archive: a.cfg.Dir}); err != nil {
				t.Error(err)
			}
		})
	}
}

// A crash may leave any of these; the next step brings it to its end.
func TestACrashWhileArchivingLosesNothing(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(t *testing.T, l *Log, a *Archiver){
		"half a copy": func(t *testing.T, l *Log, a *Archiver) {
			write(t, a.cfg.Dir, archivedName(1)+".new", []byte("\x1f\x8bhalf"))
		},
		"a copy, and the file still there": func(t *testing.T, l *Log, a *Archiver) {
			if err := a.copy(filepath.Join(l.dir, fileName(1)), filepath.Join(a.cfg.Dir, archivedName(1))); err != nil {
				t.Fatal(err)
			}
		},
		"one file is through": func(t *testing.T, l *Log, a *Archiver) {
			if err := a.archive(1); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, a := archiving(t, nil)
			before := verify(t, l.dir)
			crash(t, l, a)
			if report, err := VerifyWith(l.dir, Check{Archive: a.cfg.Dir}); err != nil || report.Events != before.Events {
				t.Errorf("after the crash: %+v, %v", report, err)
			}
			if err := a.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
			report, err := VerifyWith(l.dir, Check{Archive: a.cfg.Dir})
			if err != nil || report.HeadHash != before.HeadHash || report.Archived != 5 {
				t.Errorf("report %+v, %v; before %+v", report, err, before)
			}
		})
	}
}

// A file is removed only when the archive has it, byte for byte, and it is whole.
func TestNothingIsRemovedForABadCopy(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, l *Log, a *Archiver){
		"another file is there": func(t *testing.T, l *Log, a *Archiver) {
			if err := a.copy(filepath.Join(l.dir, fileName(2)), filepath.Join(a.cfg.Dir, archivedName(1))); err != nil {
				t.Fatal(err)
			}
		},
		"rubbish is there": func(t *testing.T, l *Log, a *Archiver) { write(t, a.cfg.Dir, archivedName(1), []byte("rubbish")) },
		"the file is damaged": func(t *testing.T, l *Log, a *Archiver) {
			b := read(t, l.dir, fileName(1))
			b[len(b)/2] ^= 1
			write(t, l.dir, fileName(1), b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, a := archiving(t, nil)
			spoil(t, l, a)
			if err := a.Step(t.Context()); !errors.Is(err, ErrChain) {
				t.Errorf("Step = %v", err)
			}
			if live, _ := files(t, l, a); len(live) != 6 {
				t.Errorf("left are %v", live)
			}
		})
	}
}

func TestVerifyFindsWhatIsWrongInTheArchive(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"a file is missing": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, archivedName(3))); err != nil {
				t.Fatal(err)
			}
		},
		"the first is missing": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, archivedName(1))); err != nil {
				t.Fatal(err)
			}
		},
		"two are swapped": func(t *testing.T, dir string) {
			one, two := read(t, dir, archivedName(1)), read(t, dir, archivedName(2))
			write(t, dir, archivedName(1), two)
			write(t, dir, archivedName(2), one)
		},
		"a file is cut": func(t *testing.T, dir string) {
			b := read(t, dir, archivedName(2))
			write(t, dir, archivedName(2), b[:len(b)/2])
		},
		"a bit is flipped": func(t *testing.T, dir string) {
			b := read(t, dir, archivedName(2))
			b[len(b)/2] ^= 8
			write(t, dir, archivedName(2), b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, a := archiving(t, nil)
			if err := a.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
			spoil(t, a.cfg.Dir)
			if report, err := VerifyWith(l.dir, Check{Archive: a.cfg.Dir}); err == nil {
				t.Errorf("report %+v", report)
			}
		})
	}
}

// What is too old goes, by a note that the key has signed; the rest is verified.
func TestTheArchiveKeepsWhatItShould(t *testing.T) {
	t.Parallel()
	sign, check, _ := testKey(t)
	_, otherCheck, _ := testKey(t)
	l, a := archiving(t, func(c *ArchiverConfig) {
		c.Keep = time.Hour
		c.Signer = NewSigner(SignerConfig{Log: c.Log, Sign: sign, Logger: c.Logger})
	})
	if err := a.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	for _, n := range []int{1, 2, 4} { // 3 is young: 4 stays behind it
		if err := os.Chtimes(filepath.Join(a.cfg.Dir, archivedName(n)), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.cfg.Signer.Now(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second step finds everything done
		if err := a.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, archived := files(t, l, a); len(archived) != 3 || archived[0] != 3 {
		t.Errorf("archived %v, want 3, 4 and 5", archived)
	}
	report, err := VerifyWith(l.dir, Check{Archive: a.cfg.Dir, Signature: check})
	if err != nil || report.Files != 4 || report.Checkpoints != 1 {
		t.Errorf("report %+v, %v", report, err)
	}
	if _, err := VerifyWith(l.dir, Check{Archive: a.cfg.Dir, Signature: otherCheck}); !errors.Is(err, ErrChain) {
		t.Errorf("with the key of somebody else: %v", err)
	}
	b, err := os.ReadFile(filepath.Join(a.cfg.Dir, beginningName))
	if err != nil {
		t.Fatal(err)
	}
	write(t, a.cfg.Dir, beginningName, bytes.Replace(b, []byte(`"sallyport.file":3`), []byte(`"sallyport.file":4`), 1))
	if _, err := VerifyWith(l.dir, Check{Archive: a.cfg.Dir, Signature: check}); !errors.Is(err, ErrChain) {
		t.Errorf("with a beginning that leaves out a file: %v", err)
	}
	if err := os.Remove(filepath.Join(a.cfg.Dir, beginningName)); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyWith(l.dir, Check{Archive: a.cfg.Dir, Signature: check}); !errors.Is(err, ErrChain) {
		t.Errorf("without a beginning: %v", err)
	}
}

// From a checkpoint on, what is older is not read.
func TestVerifyBeginsAtACheckpoint(t *testing.T) {
	t.Parallel()
	l, a := archiving(t, nil)
	if err := a.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	fourth, err := firstLine(l.dir, a.cfg.Dir, 4)
	if err != nil {
		t.Fatal(err)
	}
	from := Checkpoint{Sequence: fourth.sequence, Hash: fourth.hash}
	write(t, a.cfg.Dir, archivedName(2), []byte("rubbish")) // not read: binary search looks at others
	report, err := VerifyWith(l.dir, Check{Archive: a.cfg.Dir, From: &from})
	if err == nil && report.Files != 3 {
		t.Errorf("report %+v", report)
	}
	if err != nil && !strings.Contains(err.Error(), archivedName(2)) {
		t.Error(err)
	}
	from.Hash = strings.Repeat("0", hashHex)
	if _, err := VerifyWith(l.dir, Check{Archive: a.cfg.Dir, From: &from}); err == nil {
		t.Error("a wrong checkpoint was taken")
	}
}

// A reader goes on over the end of files, and gives out nothing that is not durable.
func TestAReaderFollowsTheLog(t *testing.T) {
	t.Parallel()
	l := openLog(t, Config{Dir: privateDir(t, t.TempDir()), MaxBytes: minMaxBytes})
	oldest, err := l.Oldest()
	if err != nil {
		t.Fatal(err)
	}
	r := l.ReadFrom(oldest)
	defer r.Close()
	for i := range 100 {
		mustRecord(t, l, t.Context(), Event{Action: AdminAct, Reason: strings.Repeat("x", 100)})
		// As a write that will fail: bytes that are not durable, and are taken back.
		if _, err := l.file.WriteAt([]byte("{torn"), l.size); err != nil {
			t.Fatal(err)
		}
		line, ok, err := r.Next()
		if err != nil || !ok || line.Sequence != uint64(i+1) || line.Mark != l.Mark() {
			t.Fatalf("event %d: %+v, %v, %v", i+1, line.Mark, ok, err)
		}
		if _, ok, err := r.Next(); ok || err != nil {
			t.Fatalf("behind event %d: %v, %v", i+1, ok, err)
		}
		if err := l.file.Truncate(l.size); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Behind(oldest); err != nil {
		t.Error(err)
	}
}

// A cursor of another log is not followed.
func TestAReaderRefusesAnotherLog(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	fill(t, dir, 10, 0)
	l := openLog(t, Config{Dir: dir})
	for name, m := range map[string]Mark{
		"another hash":   {File: 1, Sequence: 0, Hash: strings.Repeat("1", hashHex)},
		"behind the end": {File: 1, Offset: l.Mark().Offset, Sequence: 11, Hash: l.Mark().Hash},
		"another end":    {File: 1, Offset: l.Mark().Offset, Sequence: 10, Hash: strings.Repeat("1", hashHex)},
		"inside a line":  {File: 1, Offset: 10, Sequence: 0, Hash: start().hash},
	} {
		r := l.ReadFrom(m)
		if line, ok, err := r.Next(); !errors.Is(err, ErrChain) {
			t.Errorf("%s: %+v, %v, %v", name, line, ok, err)
		}
		r.Close()
	}
	var _ io.Closer = l
}
