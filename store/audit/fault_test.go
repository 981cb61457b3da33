package audit

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestAnUnwritableLogRefusesAndRecovers(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	l := openLog(t, Config{Dir: dir})
	mustRecord(t, l, t.Context(), Event{Action: AdminAct})
	good := l.file
	readOnly, err := os.Open(good.Name())
	if err != nil {
		t.Fatal(err)
	}
	l.file = readOnly // can neither be written nor truncated
	for range 3 {
		if err := l.Record(t.Context(), Event{Action: AdminAct}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Record to a read-only file = %v, want ErrUnavailable", err)
		}
	}
	l.file = good
	mustRecord(t, l, t.Context(), Event{Action: AdminAct})
	if err := readOnly.Close(); err != nil {
		t.Error(err)
	}
	if report := verify(t, dir); report.Events != 2 {
		t.Errorf("report is %+v", report)
	}
}

// The head follows the log, so that it fails after the event that it was to name:
// what is refused are those after it.
func TestAnUnwritableHeadRefusesAndRecovers(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	l := openLog(t, Config{Dir: dir})
	mustRecord(t, l, t.Context(), Event{Action: AdminAct})
	head := int(l.head.file.Fd())
	good, err := syscall.Dup(head)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(good)
	readOnly, err := os.Open(l.head.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	// Under the descriptor, since the writer's goroutine uses the file.
	replace := func(by int) {
		t.Helper()
		if err := syscall.Dup3(by, head, 0); err != nil {
			t.Fatal(err)
		}
	}
	replace(int(readOnly.Fd()))
	recorded := uint64(1)
	for err = nil; err == nil && recorded < 1e6; {
		if err = l.Record(t.Context(), Event{Action: AdminAct}); err == nil {
			recorded++
		}
	}
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Record = %v, want ErrUnavailable", err)
	}
	verify(t, dir) // the log is ahead of the head, never behind
	replace(good)
	mustRecord(t, l, t.Context(), Event{Action: AdminAct})
	if report := verify(t, dir); report.Events != recorded+1 {
		t.Errorf("%d events were acknowledged, the report is %+v", recorded+1, report)
	}
}

func TestTheHeadFollowsTheLog(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	l := openLog(t, Config{Dir: dir})
	named := func() uint64 {
		head, err := readHead(dir)
		if err != nil {
			t.Fatal(err)
		}
		return head.sequence
	}
	for range 3 {
		mustRecord(t, l, t.Context(), Event{Action: AdminAct})
	}
	for deadline := time.Now().Add(20 * time.Second); named() != 3; time.Sleep(headDelay) {
		if time.Now().After(deadline) {
			t.Fatalf("the head names event %d of 3", named())
		}
	}
	for range 2 {
		mustRecord(t, l, t.Context(), Event{Action: AdminAct})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if named() != 5 {
		t.Errorf("after Close the head names event %d of 5", named())
	}
}

func TestARotationThatFailsRefusesAndRecovers(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	l := openLog(t, Config{Dir: dir, MaxBytes: minMaxBytes})
	blocker := filepath.Join(dir, fileName(2))
	if err := os.Mkdir(blocker, 0o700); err != nil {
		t.Fatal(err)
	}
	recorded := uint64(0)
	var err error
	for ; err == nil && recorded < 100; recorded++ {
		err = l.Record(t.Context(), Event{Action: AdminAct})
	}
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Record with the next file blocked = %v, want ErrUnavailable", err)
	}
	if err := os.Remove(blocker); err != nil {
		t.Fatal(err)
	}
	mustRecord(t, l, t.Context(), Event{Action: AdminAct})
	if report := verify(t, dir); report.Events != recorded || report.Files != 2 {
		t.Errorf("after %d events the report is %+v", recorded, report)
	}
}

// The disk is full in a child process, by its limit on the size of files: the
// kernel then writes a part and refuses the rest, as it does on a full disk.
func TestAFullDiskRefusesAndRecoversWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	out, err := child(t, "full-disk", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var recorded, refused uint64
	if _, err := fmt.Sscanf(string(out), "recorded %d refused %d", &recorded, &refused); err != nil || refused == 0 {
		t.Fatalf("child says %q", out)
	}
	if report := verify(t, dir); report.Events != recorded || report.Unfinished != 0 {
		t.Errorf("%d events were acknowledged, the report is %+v", recorded, report)
	}
}

// fillDisk is the child of the test above.
func fillDisk(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	l, err := Open(Config{Dir: dir})
	if err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	full := syscall.Rlimit{Cur: 3 * slotBytes, Max: limit.Max}
	var mu sync.Mutex
	var recorded, refused int
	phase := func() {
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				for range 10 {
					err := l.Record(bare(), Event{Action: ExecStart, Reason: strings.Repeat("x", 100*worker)})
					mu.Lock()
					if err == nil {
						recorded++
					} else if errors.Is(err, ErrUnavailable) && errors.Is(err, syscall.EFBIG) {
						refused++
					} else {
						fmt.Println("unexpected:", err)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	for _, now := range []syscall.Rlimit{limit, full, limit} {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &now); err != nil {
			return err
		}
		before := refused
		phase()
		if now == limit && refused != before {
			return fmt.Errorf("%d events refused though there is room", refused-before)
		}
	}
	fmt.Println("recorded", recorded, "refused", refused)
	return l.Close()
}

func TestNoAcknowledgedEventIsLostWhenTheProcessIsKilled(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	acknowledged := map[string]bool{}
	for round := range 4 {
		runAndKill(t, dir, 40+60*round, acknowledged)
		if _, err := Verify(dir); err != nil {
			t.Fatalf("round %d, before the log is opened again: %v", round, err)
		}
		fill(t, dir, 1, 16<<10)
		report := verify(t, dir)
		if report.Unfinished != 0 {
			t.Errorf("round %d: report after Open is %+v", round, report)
		}
		found := map[string]bool{}
		for n := 1; n <= report.Files; n++ {
			for _, line := range lines(t, dir, n) {
				if id, ok := decodeLine(t, line)["sallyport.id"].(string); ok {
					found[id] = true
				}
			}
		}
		for id := range acknowledged {
			if !found[id] {
				t.Errorf("round %d: event %s was acknowledged and is not in the log", round, id)
			}
		}
	}
}

// runAndKill starts a child that records as fast as it can, kills it after it has
// acknowledged n events, and adds what it acknowledged until it was gone.
func runAndKill(t *testing.T, dir string, n int, acknowledged map[string]bool) {
	t.Helper()
	cmd := child(t, "record", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	before := len(acknowledged)
	s := bufio.NewScanner(out)
	for s.Scan() {
		if id := s.Text(); strings.Count(id, "/") == 2 {
			acknowledged[id] = true
		} else {
			t.Errorf("child says %q", id)
		}
		if len(acknowledged)-before == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(acknowledged)-before < n {
		t.Fatalf("child ended with %v after %d events", err, len(acknowledged)-before)
	}
}

// recordForever is that child: it prints the id of each event once Record has
// returned.
func recordForever(dir string) error {
	l, err := Open(Config{Dir: dir, MaxBytes: 16 << 10})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for worker := range 16 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d/%d/%d", os.Getpid(), worker, i)
				if err := l.Record(bare(), Event{Action: ExecStart, Detail: map[string]string{"id": id}}); err != nil {
					failed <- err
					return
				}
				fmt.Println(id)
			}
		}()
	}
	return <-failed
}

// child returns a command that runs this test binary as one of the children.
func child(t *testing.T, role, dir string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childRole+"="+role, childDir+"="+dir)
	return cmd
}
