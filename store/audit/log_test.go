package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRecordWritesOneLineWithECSNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // for the clock: 2000-01-01
		dir := filepath.Join(t.TempDir(), "audit")
		l := openLog(t, Config{Dir: dir})
		ctx := WithRequest(t.Context(), Request{ID: "req-1", SourceIP: "192.0.2.7"})
		mustRecord(t, l, ctx, Event{
			Action: CertificateRefused, Outcome: Failure, Reason: "policy",
			Issuer: "campus", Subject: "f3a1", Login: "alice", System: "daint", Node: "login1:22",
			Detail: map[string]string{"serial": "17", "key_id": "v1:x", "empty": ""},
		})
		mustRecord(t, l, t.Context(), Event{Action: AdminAct})
		got := lines(t, dir, 1)
		if len(got) != 2 {
			t.Fatalf("%d lines, want 2", len(got))
		}
		first := decodeLine(t, got[0])
		want := map[string]any{
			"@timestamp": "2000-01-01T00:00:00.000000Z", "event.sequence": 1.0,
			"event.action": "certificate.refused", "event.outcome": "failure", "event.reason": "policy",
			"sallyport.issuer": "campus", "user.id": "f3a1", "user.name": "alice",
			"source.ip": "192.0.2.7", "http.request.id": "req-1",
			"sallyport.system": "daint", "destination.address": "login1:22",
			"sallyport.serial": "17", "sallyport.key_id": "v1:x",
			"sallyport.prev": strings.Repeat("0", 64), "event.hash": first["event.hash"],
		}
		if diff := cmp.Diff(want, first); diff != "" {
			t.Errorf("first line (-want +got):\n%s", diff)
		}
		second := decodeLine(t, got[1])
		want = map[string]any{
			"@timestamp": "2000-01-01T00:00:00.000000Z", "event.sequence": 2.0, "event.action": "admin.act",
			"sallyport.prev": first["event.hash"], "event.hash": second["event.hash"],
		}
		if diff := cmp.Diff(want, second); diff != "" {
			t.Errorf("second line (-want +got):\n%s", diff)
		}
	})
}

func TestHostileValuesStayInsideTheirField(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, Config{Dir: privateDir(t, dir)})
	for name, value := range map[string]string{
		"newline":     "a\nb\r\n{\"event.action\":\"forged\"}",
		"quote":       `x","event.action":"forged`,
		"backslash":   `\",\`,
		"terminal":    "\x1b[2J\x9b31m\u009b31m\x7f",
		"bidi":        "user\u202egnp.exe\u2066",
		"separator":   "a\u2028b\u2029c\u00a0d",
		"not utf-8":   "\xff\xfe\xc3(\xed\xa0\x80",
		"astral":      "😀\U000e0001",
		"zero byte":   "a\x00b",
		"replacement": "\ufffd",
	} {
		mustRecord(t, l, t.Context(), Event{Action: TokenRefused, Reason: value, Detail: map[string]string{"value": value}})
		all := lines(t, dir, 1)
		last := all[len(all)-1]
		got := decodeLine(t, last)
		want := strings.ToValidUTF8(value, "\ufffd")
		if name == "not utf-8" {
			want = "" // the number of U+FFFD for a run of bad bytes is not ours to fix
		}
		if got["event.action"] != "token.refused" || want != "" && (got["event.reason"] != want || got["sallyport.value"] != want) {
			t.Errorf("%s: line is %s", name, last)
		}
		for _, r := range string(last) {
			if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa1 || r >= 0x2000 && r < 0x2070 {
				t.Errorf("%s: line holds a raw %U: %q", name, r, last)
			}
		}
	}
	if report := verify(t, dir); report.Events != 10 {
		t.Errorf("report has %d events, want 10", report.Events)
	}
}

func TestLongValuesAreCutAtACharacter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, Config{Dir: privateDir(t, dir)})
	for _, test := range []struct{ value, want string }{
		{strings.Repeat("x", MaxFieldBytes), strings.Repeat("x", MaxFieldBytes)},
		{strings.Repeat("x", MaxFieldBytes+1), strings.Repeat("x", MaxFieldBytes-3) + "…"},
		{"x" + strings.Repeat("ä", MaxFieldBytes), "x" + strings.Repeat("ä", (MaxFieldBytes-4)/2) + "…"},
		{strings.Repeat("😀", MaxFieldBytes), strings.Repeat("😀", (MaxFieldBytes-3)/4) + "…"},
	} {
		mustRecord(t, l, t.Context(), Event{Action: TokenRefused, Reason: test.value})
		all := lines(t, dir, 1)
		if got := decodeLine(t, all[len(all)-1])["event.reason"]; got != test.want {
			t.Errorf("%.10s… of %d bytes was kept as %.10s… of %d", test.value, len(test.value), got, len(got.(string)))
		}
	}
	if got := cut(strings.Repeat("\x80", MaxFieldBytes+9), MaxFieldBytes); len(got) > MaxFieldBytes {
		t.Errorf("a value without any character start was cut to %d bytes", len(got))
	}
}

func TestTheLargestEventCanBeVerified(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, Config{Dir: privateDir(t, dir)})
	huge := strings.Repeat("\x01", 2*MaxFieldBytes)
	e := Event{
		Action: Action(huge), Outcome: Outcome(huge), Reason: huge, Issuer: huge, Subject: huge, Login: huge,
		System: huge, Node: huge, Detail: map[string]string{},
	}
	for i := range MaxDetails {
		e.Detail[fmt.Sprintf("%s%02d", strings.Repeat("d", maxDetailName-2), i)] = huge
	}
	for range 3 {
		mustRecord(t, l, WithRequest(t.Context(), Request{ID: huge, SourceIP: huge}), e)
	}
	if report := verify(t, dir); report.Events != 3 {
		t.Errorf("report has %d events, want 3", report.Events)
	}
}

func TestEventsThatAreAMistakeAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, Config{Dir: privateDir(t, dir)})
	many := map[string]string{}
	for i := range MaxDetails + 1 {
		many[fmt.Sprintf("d%d", i)] = "x"
	}
	for name, e := range map[string]Event{
		"no action":        {},
		"too many details": {Action: AdminAct, Detail: many},
		"name of a field":  {Action: AdminAct, Detail: map[string]string{"prev": "x"}},
		"empty name":       {Action: AdminAct, Detail: map[string]string{"": "x"}},
		"upper case":       {Action: AdminAct, Detail: map[string]string{"Prev": "x"}},
		"digit first":      {Action: AdminAct, Detail: map[string]string{"1st": "x"}},
		"quote in name":    {Action: AdminAct, Detail: map[string]string{`a":"b`: "x"}},
		"long name":        {Action: AdminAct, Detail: map[string]string{strings.Repeat("n", maxDetailName+1): "x"}},
	} {
		if err := l.Record(t.Context(), e); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: Record = %v, want ErrUnavailable", name, err)
		}
	}
	if report := verify(t, dir); report.Events != 0 {
		t.Errorf("%d refused events are in the log", report.Events)
	}
}

func TestConcurrentRecordsFormOneChainOverManyFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, Config{Dir: privateDir(t, dir), MaxBytes: minMaxBytes})
	const workers, each = 16, 25
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				mustRecord(t, l, t.Context(), Event{Action: ExecStart, Detail: map[string]string{"worker": fmt.Sprint(w), "step": fmt.Sprint(i)}})
			}
		})
	}
	wg.Wait()
	report := verify(t, dir)
	if report.Events != workers*each || report.Sequence != workers*each || report.Files < 10 || report.Unfinished != 0 {
		t.Errorf("report is %+v", report)
	}
	step := map[string]int{}
	for n := 1; n <= report.Files; n++ {
		if info, err := os.Stat(filepath.Join(dir, fileName(n))); err != nil || info.Size() > minMaxBytes || info.Mode().Perm() != 0o600 {
			t.Errorf("file %d: %v, %v", n, info, err)
		}
		for _, line := range lines(t, dir, n) {
			got := decodeLine(t, line)
			worker := got["sallyport.worker"].(string)
			if got["sallyport.step"] != fmt.Sprint(step[worker]) {
				t.Errorf("worker %s: step %s where %d is due", worker, got["sallyport.step"], step[worker])
			}
			step[worker]++
		}
	}
}

func TestLogGoesOnAfterReopening(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	for i := range 40 {
		l := openLog(t, Config{Dir: dir, MaxBytes: minMaxBytes})
		mustRecord(t, l, t.Context(), Event{Action: AdminAct})
		mustRecord(t, l, t.Context(), Event{Action: AdminAct})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if report := verify(t, dir); report.Events != uint64(2*i+2) {
			t.Fatalf("after %d runs the log has %d events", i+1, report.Events)
		}
	}
}

func TestOlderFilesMayBeMovedToAnArchive(t *testing.T) {
	t.Parallel()
	dir, archive := privateDir(t, t.TempDir()), t.TempDir()
	fill(t, dir, 40, minMaxBytes)
	for _, n := range []int{1, 2} {
		if err := os.Rename(filepath.Join(dir, fileName(n)), filepath.Join(archive, fileName(n))); err != nil {
			t.Fatal(err)
		}
	}
	fill(t, dir, 40, minMaxBytes)
	if _, err := Verify(dir); !errors.Is(err, ErrChain) || !strings.Contains(err.Error(), "audit-000001.jsonl is missing") {
		t.Errorf("Verify without the archive = %v", err)
	}
	for _, n := range []int{1, 2} {
		if err := os.Rename(filepath.Join(archive, fileName(n)), filepath.Join(dir, fileName(n))); err != nil {
			t.Fatal(err)
		}
	}
	if report := verify(t, dir); report.Events != 80 {
		t.Errorf("with the archive the log has %d events, want 80", report.Events)
	}
}

func TestRecordStopsWaitingOnlyWhileQueued(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	l := openLog(t, Config{Dir: dir})
	over := contextThatIsOver(t)
	if err := l.Record(over, Event{Action: AdminAct}); !errors.Is(err, ErrUnavailable) || !errors.Is(err, over.Err()) {
		t.Errorf("Record with a context that is over = %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Record(t.Context(), Event{Action: AdminAct}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Record on a closed log = %v, want ErrUnavailable", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	if report := verify(t, dir); report.Events != 0 {
		t.Errorf("%d refused events are in the log", report.Events)
	}
}

func TestReportHasTheTimesOfFirstAndLastEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := privateDir(t, t.TempDir())
		l := openLog(t, Config{Dir: dir})
		begin := time.Now().UTC()
		for range 3 {
			mustRecord(t, l, t.Context(), Event{Action: AdminAct})
			time.Sleep(time.Hour)
		}
		last := decodeLine(t, lines(t, dir, 1)[2])
		want := Report{
			Files: 1, Events: 3, First: begin, Last: begin.Add(2 * time.Hour),
			Sequence: 3, HeadHash: last["event.hash"].(string), Unsigned: 3, UnsignedFor: 2 * time.Hour,
		}
		if diff := cmp.Diff(want, verify(t, dir)); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
	})
}

func decodeLine(t *testing.T, line []byte) map[string]any {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatalf("line is not JSON: %v: %q", err, line)
	}
	return got
}

// lines returns the lines of a file of the log.
func lines(t *testing.T, dir string, number int) (lines [][]byte) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, fileName(number)))
	if err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, maxLineBytes)
	for s.Scan() {
		lines = append(lines, bytes.Clone(s.Bytes()))
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestRecordLaterRecordsInOrderAndTells(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	l := openLog(t, Config{Dir: dir})
	told := make(chan error, 3)
	for i := range 3 {
		l.RecordLater(t.Context(), Event{Action: ExecEnd, Detail: map[string]string{"n": strconv.Itoa(i)}}, func(err error) { told <- err })
	}
	for range 3 {
		if err := <-told; err != nil {
			t.Error(err)
		}
	}
	for i, line := range lines(t, dir, 1) {
		if got := decodeLine(t, line)["sallyport.n"]; got != strconv.Itoa(i) {
			t.Errorf("event %d is %v", i, got)
		}
	}
	l.RecordLater(t.Context(), Event{}, func(err error) { told <- err })
	if err := <-told; !errors.Is(err, ErrUnavailable) {
		t.Errorf("an event without an action: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l.RecordLater(t.Context(), Event{Action: ExecEnd}, func(err error) { told <- err })
	if err := <-told; !errors.Is(err, ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}

// plain is a recorder that can do nothing but what the interface says.
type plain struct{ Recorder }

func TestAnyRecorderCanRecordLater(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	l := openLog(t, Config{Dir: dir})
	for _, r := range []Recorder{l, plain{l}} {
		told := make(chan error, 1)
		RecordLater(t.Context(), r, Event{Action: ExecEnd}, func(err error) { told <- err })
		if err := <-told; err != nil {
			t.Errorf("%T: %v", r, err)
		}
	}
	if report := verify(t, dir); report.Events != 2 {
		t.Errorf("report is %+v", report)
	}
}
