package ca

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/identity/identitytest"
	"sallyport/store/audit"
	"sallyport/store/bolt"
)

// crashDir names, for a child process of the test, the folder to issue in.
const crashDir = "SALLYPORT_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := issueUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is what identitytest needs where there is no test.
type child struct{ dir string }

func (child) Helper()                  {}
func (child) Context() context.Context { return context.Background() }
func (c child) TempDir() string        { return c.dir }

func (child) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// issueUntilKilled issues 1,000 certificates at once and prints each serial when
// it has the certificate.
func issueUntilKilled(dir string) error {
	key, err := LoadKey(filepath.Join(dir, "key"), nil)
	if err != nil {
		return err
	}
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "sallyport.db")})
	if err != nil {
		return err
	}
	log, err := audit.Open(audit.Config{Dir: filepath.Join(dir, "audit"), MaxBytes: 64 << 10}) // to rotate as well
	if err != nil {
		return err
	}
	a, err := New(Config{Key: key, Store: db, Audit: log})
	if err != nil {
		return err
	}
	caller := identitytest.Identity(child{dir}, "alice", time.Hour)
	var wg sync.WaitGroup
	errs := make([]error, 1000)
	for i := range errs {
		wg.Go(func() {
			var seed [ed25519.SeedSize]byte
			binary.BigEndian.PutUint64(seed[:], uint64(i))
			pub, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(seed[:]).Public())
			if err != nil {
				errs[i] = err
				return
			}
			cert, err := a.Issue(context.Background(), Request{Caller: caller, Profile: "user", PublicKey: pub})
			if err == nil {
				_, err = os.Stdout.WriteString(strconv.FormatUint(cert.Serial, 10) + "\n")
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(append(errs, db.Close(), log.Close())...)
}

func TestAfterKill9EveryReleasedCertificateIsKnown(t *testing.T) {
	t.Parallel()
	for _, after := range []int{1, 500} {
		t.Run(fmt.Sprintf("after %d certificates", after), func(t *testing.T) {
			dir := privateDir(t)
			text, _, err := GenerateKey("", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "key"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			released := runAndKill(t, dir, after)
			if len(released) < after || len(released) >= 1000 {
				t.Fatalf("%d certificates were released before the kill; want %d to 999", len(released), after)
			}
			checkAfterCrash(t, dir, released)
		})
	}
}

// runAndKill returns the serials that a child printed, which is killed when it has
// printed so many.
func runAndKill(t *testing.T, dir string, after int) (serials []uint64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		n, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if serials = append(serials, n); len(serials) == after {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child ended with %v, want a kill", err)
	}
	return serials
}

func checkAfterCrash(t *testing.T, dir string, released []uint64) {
	t.Helper()
	key, err := LoadKey(filepath.Join(dir, "key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := openWorld(t, dir, key) // repairs what was written and never acknowledged
	if _, err := audit.Verify(filepath.Join(dir, "audit")); err != nil {
		t.Fatalf("audit log after the crash: %v", err)
	}
	intents := serialsOf(t, w.events(t, audit.CertificateIntent))
	issued := serialsOf(t, w.events(t, audit.CertificateIssued))
	var ledger []uint64
	for _, row := range w.rows(t) {
		ledger = append(ledger, row.Serial)
	}
	for _, n := range released {
		for place, known := range map[string][]uint64{"ledger": ledger, "audit as intent": intents, "audit as issued": issued} {
			if _, ok := slices.BinarySearch(known, n); !ok {
				t.Errorf("serial %d was released and is not in the %s", n, place)
			}
		}
	}
	// The other direction of "record, then act": no row without its intent.
	for _, n := range ledger {
		if _, ok := slices.BinarySearch(intents, n); !ok {
			t.Errorf("serial %d is in the ledger without an intent", n)
		}
	}
}
