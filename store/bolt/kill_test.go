package bolt

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/store"
)

// The test binary serves as the child process that is killed, when this is set to
// the path of a store.
const childPath = "SALLYPORT_BOLT_TEST_PATH"

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		fmt.Println(putForever(path))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func TestNoAcknowledgedPutIsLostWhenTheProcessIsKilled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sallyport.db")
	acknowledged := map[string]bool{}
	for round := range 5 {
		killAfter(t, path, 50+50*round, acknowledged)
		db, err := Open(Config{Path: path})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		requireConsistent(t, db)
		for key := range acknowledged {
			if e, err := db.Get(t.Context(), key); err != nil || string(e.Value) != key {
				t.Errorf("round %d: Get(%q) = %q, %v", round, key, e.Value, err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killAfter starts a child that writes as fast as it can, kills it after it has
// acknowledged n entries, and adds what it acknowledged until it was gone.
func killAfter(t *testing.T, path string, n int, acknowledged map[string]bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childPath+"="+path)
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
		if key := s.Text(); strings.HasPrefix(key, "put/") {
			acknowledged[key] = true
		} else {
			t.Errorf("child says %q", key)
		}
		if len(acknowledged)-before == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(acknowledged)-before < n {
		t.Fatalf("child ended with %v after %d entries", err, len(acknowledged)-before)
	}
}

// putForever is that child: it prints the key of each entry once Put has
// returned.
func putForever(path string) error {
	db, err := Open(Config{Path: path, PruneInterval: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for worker := range 16 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("put/%d/%d/%d", os.Getpid(), worker, i)
				_, err := db.Put(context.Background(), store.Entry{Key: key, Value: []byte(key), Expires: time.Now().Add(time.Hour)})
				if err == nil { // and something for the pruner to do
					_, err = db.Put(context.Background(), store.Entry{Key: "brief/" + key, Expires: time.Now().Add(time.Millisecond)})
				}
				if err != nil {
					failed <- err
					return
				}
				fmt.Println(key)
			}
		}()
	}
	return <-failed
}
