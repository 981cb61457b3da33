package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// crashed makes a log of 20 events in two files whose head acknowledges only the
// first 17, as a crash between the two syncs leaves it.
func crashed(t *testing.T) (dir string) {
	t.Helper()
	dir = privateDir(t, t.TempDir())
	fill(t, dir, 17, minMaxBytes)
	head := read(t, dir, headName)
	fill(t, dir, 3, minMaxBytes)
	write(t, dir, headName, head)
	if _, err := os.Stat(filepath.Join(dir, fileName(2))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOpenRepairsWhatACrashLeaves(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		crash     func(t *testing.T, dir string)
		events    uint64 // that are there afterwards
		kept      float64
		removed   bool
		damaged   bool
		verifyErr bool // Verify says so, too, before Open
	}{
		{name: "whole events after the head are kept", events: 20, kept: 3, crash: func(*testing.T, string) {}},
		{
			name: "the beginning of a line is removed", events: 20, kept: 3, removed: true,
			crash: func(t *testing.T, dir string) { appendTo(t, dir, fileName(2), []byte(`{"@timestamp":"2`)) },
		},
		{
			name: "zeros in place of a write are removed", events: 20, kept: 3, removed: true,
			crash: func(t *testing.T, dir string) { appendTo(t, dir, fileName(2), make([]byte, 5000)) },
		},
		{
			name: "a hole in an unacknowledged write removes what follows", events: 18, kept: 1, removed: true,
			crash: editLines(2, func(l [][]byte) [][]byte { clear(l[len(l)-2]); return l }),
		},
		{
			name: "a torn first line of a new file is removed", events: 20, kept: 3, removed: true,
			crash: func(t *testing.T, dir string) { write(t, dir, fileName(3), []byte(`{"@time`)) },
		},
		{
			name: "an empty new file is used", events: 20, kept: 3,
			crash: func(t *testing.T, dir string) { write(t, dir, fileName(3), nil) },
		},
		{
			name: "a torn record of the head leaves the other one", events: 20, kept: 20, damaged: true, verifyErr: true,
			crash: func(t *testing.T, dir string) { tearNewestHead(t, dir) },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := crashed(t)
			test.crash(t, dir)
			before, err := Verify(dir)
			if (err != nil) != test.verifyErr {
				t.Errorf("Verify before Open = %v", err)
			}
			if err == nil && (before.Events != test.events || (before.Unfinished > 0) != test.removed) {
				t.Errorf("report before Open = %+v", before)
			}
			var logged bytes.Buffer
			l := openLog(t, Config{Dir: dir, MaxBytes: minMaxBytes, Logger: slog.New(slog.NewJSONHandler(&logged, nil))})
			var got map[string]any
			if err := json.Unmarshal(logged.Bytes(), &got); err != nil {
				t.Fatalf("Open logged %q: %v", logged.String(), err)
			}
			kept, _ := got["whole_events_kept"].(float64)
			if removed, _ := got["unfinished_bytes_removed"].(float64); (removed > 0) != test.removed ||
				got["head_was_damaged"] != test.damaged || !test.damaged && kept != test.kept {
				t.Errorf("Open logged %s", logged.String())
			}
			if after := verify(t, dir); after.Events != test.events || after.Unfinished != 0 {
				t.Errorf("report after Open = %+v", after)
			}
			mustRecord(t, l, t.Context(), Event{Action: AdminAct})
			if after := verify(t, dir); after.Events != test.events+1 {
				t.Errorf("report after one more event = %+v", after)
			}
		})
	}
}

func TestOpenRefusesALogThatIsNotWhatWasWritten(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		tamper func(t *testing.T, dir string)
		want   string
	}{
		{"acknowledged line changed", editLines(2, func(l [][]byte) [][]byte { l[1][30] ^= 1; return l }), "audit-000002.jsonl line 2: its bytes"},
		{"acknowledged lines cut", editLines(2, func(l [][]byte) [][]byte { return l[:2] }), "but event 17 was acknowledged: the end is missing"},
		{"file emptied", editLines(2, func([][]byte) [][]byte { return nil }), "but event 17 was acknowledged"},
		{"file of the head removed", removeFile(fileName(2)), "audit-000002.jsonl is missing"},
		{"gap after the file of the head", func(t *testing.T, dir string) { write(t, dir, fileName(4), nil) }, "audit-000003.jsonl is missing"},
		{"unfinished file followed by another", func(t *testing.T, dir string) {
			appendTo(t, dir, fileName(2), []byte("x"))
			write(t, dir, fileName(3), nil)
		}, "audit-000002.jsonl line "},
		{"head removed", removeFile(headName), "the head file is missing or damaged"},
		{"head replaced by garbage", func(t *testing.T, dir string) { write(t, dir, headName, []byte("{}")) }, "the head file is missing or damaged"},
		{"lines replaced from the first on", editLines(2, func(l [][]byte) [][]byte {
			p := start()
			p.sequence, p.hash = 12, strings.Repeat("e", hashHex)
			for i := range l {
				l[i], p = p.appendLine(nil, parseTime(l[i]), []byte(`,"event.action":"forged"`))
			}
			return l
		}), "audit-000002.jsonl line "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := crashed(t)
			test.tamper(t, dir)
			l, err := Open(Config{Dir: dir, MaxBytes: minMaxBytes})
			if !errors.Is(err, ErrChain) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open = %v, %v\nwant ErrChain and %q", l, err, test.want)
			}
			if _, err := Verify(dir); !errors.Is(err, ErrChain) {
				t.Errorf("Verify = %v, want ErrChain", err)
			}
		})
	}
}

func TestOpenRefusesAFolderOrFileThatOthersMayUse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, dir string) error
	}{
		{"folder that others may enter", func(_ *testing.T, dir string) error { return os.Chmod(dir, 0o750) }},
		{"log that others may read", func(_ *testing.T, dir string) error { return os.Chmod(filepath.Join(dir, fileName(1)), 0o640) }},
		{"head that others may write", func(_ *testing.T, dir string) error { return os.Chmod(filepath.Join(dir, headName), 0o602) }},
		{"log that is a symbolic link", func(t *testing.T, dir string) error {
			other := filepath.Join(t.TempDir(), "log")
			return errors.Join(os.Rename(filepath.Join(dir, fileName(1)), other), os.Symlink(other, filepath.Join(dir, fileName(1))))
		}},
		{"folder that is a file", func(_ *testing.T, dir string) error {
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "audit")
			fill(t, dir, 1, 0)
			if err := test.spoil(t, dir); err != nil {
				t.Fatal(err)
			}
			l, err := Open(Config{Dir: dir})
			if err == nil {
				t.Error("Open took it", l.Close())
			}
		})
	}
}

func TestOpenReportsEveryMistakeOfTheConfiguration(t *testing.T) {
	t.Parallel()
	_, err := Open(Config{MaxBytes: 100})
	if err == nil || !strings.Contains(err.Error(), "no folder given") || !strings.Contains(err.Error(), "file size of 100 bytes") {
		t.Errorf("Open = %v", err)
	}
	if _, err := Open(Config{Dir: filepath.Join(t.TempDir(), "a", "b")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open below a missing folder = %v, want ErrNotExist", err)
	}
}

func TestASecondOpenIsRefusedAtOnceAndHarmsNothing(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	l := openLog(t, Config{Dir: dir})
	for range 3 {
		mustRecord(t, l, t.Context(), Event{Action: AdminAct})
		if _, err := Open(Config{Dir: dir}); !errors.Is(err, ErrLocked) {
			t.Errorf("second Open = %v, want ErrLocked", err)
		}
	}
	if report := verify(t, dir); report.Events != 3 {
		t.Errorf("report is %+v", report)
	}
}

// A crash can come before anything but the names of the files is durable.
func TestOpenBeginsANewLogWhereOneWasHardlyBegun(t *testing.T) {
	t.Parallel()
	for name, files := range map[string][]string{
		"nothing":    nil,
		"empty head": {headName},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := privateDir(t, t.TempDir())
			for _, f := range files {
				write(t, dir, f, nil)
			}
			fill(t, dir, 1, 0)
			if report := verify(t, dir); report.Events != 1 {
				t.Errorf("report is %+v", report)
			}
		})
	}
}

// tearNewestHead overwrites half of the record that counts.
func tearNewestHead(t *testing.T, dir string) {
	t.Helper()
	head := read(t, dir, headName)
	found, err := slots(bytes.NewReader(head))
	if err != nil {
		t.Fatal(err)
	}
	clear(head[newest(found)*slotBytes+50:][:slotBytes-50])
	write(t, dir, headName, head)
}
