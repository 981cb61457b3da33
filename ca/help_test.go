package ca

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store"
	"sallyport/store/audit"
	"sallyport/store/bolt"
)

// A world is an authority on a real store and a real audit log.
type world struct {
	*Authority
	key  *Key
	db   *bolt.DB
	log  *audit.Log
	dir  string
	auth Config
}

func newWorld(t testing.TB, change ...func(*Config)) *world {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return openWorld(t, dir, newTestKey(t, "ed25519"), change...)
}

func openWorld(t testing.TB, dir string, key *Key, change ...func(*Config)) *world {
	t.Helper()
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "sallyport.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	log, err := audit.Open(audit.Config{Dir: filepath.Join(dir, "audit")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	w := &world{key: key, db: db, log: log, dir: dir, auth: Config{Key: key, Store: db, Audit: log}}
	if _, err := New(w.auth); err != nil { // the first start; change may break the store
		t.Fatal(err)
	}
	for _, f := range change {
		f(&w.auth)
	}
	if w.Authority, err = New(w.auth); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) close(t testing.TB) {
	t.Helper()
	if err := errors.Join(w.db.Close(), w.log.Close()); err != nil {
		t.Fatal(err)
	}
}

// events returns the lines of the audit log with this action.
func (w *world) events(t testing.TB, action audit.Action) []map[string]any {
	t.Helper()
	return readEvents(t, filepath.Join(w.dir, "audit"), action)
}

func readEvents(t testing.TB, dir string, action audit.Action) (events []map[string]any) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "audit-*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("audit log in %q: %v, %d files", dir, err, len(files))
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			var e map[string]any
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("audit line %q: %v", line, err)
			}
			if e["event.action"] == string(action) {
				events = append(events, e)
			}
		}
	}
	return events
}

func (w *world) rows(t testing.TB) []Issued {
	t.Helper()
	return rowsOf(t, w.Authority)
}

func rowsOf(t testing.TB, a *Authority) (rows []Issued) {
	t.Helper()
	for row, err := range a.Ledger(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	return rows
}

func newTestKey(t testing.TB, algorithm string) *Key {
	t.Helper()
	text, _, err := GenerateKey(algorithm, nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := parseKey(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newPublicKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return sshKey(t, pub)
}

func sshKey(t testing.TB, key any) ssh.PublicKey {
	t.Helper()
	pub, err := ssh.NewPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func alice(t testing.TB) identity.Identity { return identitytest.Identity(t, "alice", 10*time.Minute) }

// wantCode fails unless err is a RequestError with the code, and its text is fit
// for a client.
func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	refused, ok := errors.AsType[*RequestError](err)
	if !ok {
		t.Fatalf("error is %v (%T), want a RequestError", err, err)
	}
	if refused.Code != code || !errors.Is(err, ErrPolicy) {
		t.Errorf("code is %q (%v), want %q", refused.Code, err, code)
	}
	text := refused.Error()
	if len(text) > 400 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
		t.Errorf("text is not fit for a client: %q", text)
	}
}

// brokenAudit fails for one action and passes the rest on.
type brokenAudit struct {
	audit.Recorder
	action audit.Action
}

var errDisk = errors.New("no space left on device")

func (b brokenAudit) Record(ctx context.Context, e audit.Event) error {
	if e.Action == b.action {
		return errDisk
	}
	return b.Recorder.Record(ctx, e)
}

// brokenStore fails every write, and lists no ledger.
type brokenStore struct{ store.Store }

func (brokenStore) Put(context.Context, store.Entry) (store.Entry, error) {
	return store.Entry{}, errDisk
}

func (s brokenStore) List(ctx context.Context, prefix string) iter.Seq2[store.Entry, error] {
	if prefix != ledgerPrefix {
		return s.Store.List(ctx, prefix)
	}
	return func(yield func(store.Entry, error) bool) { yield(store.Entry{}, errDisk) }
}

// spySigner counts signatures, and does what it is told besides.
type spySigner struct {
	ssh.AlgorithmSigner
	mu     sync.Mutex // guards calls
	calls  int
	before func()
	after  func(*ssh.Signature)
}

func spyOn(key *Key) *spySigner {
	spy := &spySigner{AlgorithmSigner: key.signer.inner}
	key.signer.inner = spy
	return spy
}

func (s *spySigner) SignWithAlgorithm(random io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	if s.before != nil {
		s.before()
	}
	sig, err := s.AlgorithmSigner.SignWithAlgorithm(random, data, algorithm)
	if err == nil && s.after != nil {
		s.after(sig)
	}
	return sig, err
}

func (s *spySigner) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}
