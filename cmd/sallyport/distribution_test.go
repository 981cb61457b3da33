package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/sshd-config/nodesync"
	"sallyport/store"
	"sallyport/store/audit"
	"sallyport/store/bolt"
)

// A publication is what a CA publishes, for a test to change.
type publication struct {
	mu   sync.Mutex // guards the fields below
	keys []ssh.PublicKey
	list []byte
}

func (p *publication) TrustBundle() (text []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.keys {
		text = append(text, ssh.MarshalAuthorizedKey(k)...)
	}
	return text
}

func (p *publication) RevocationList() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.list)
}

func (p *publication) Keys() (list []ca.KeyStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := ca.KeyActive
	for _, k := range p.keys {
		list = append(list, ca.KeyStatus{State: state, Fingerprint: ssh.FingerprintSHA256(k)})
		state = ca.KeyPending
	}
	return list
}

func (p *publication) change(keys []ssh.PublicKey, list string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys, p.list = keys, []byte(list)
}

// acts is an audit log in memory that can fail.
type acts struct {
	mu     sync.Mutex // guards the fields below
	events []audit.Event
	err    error
}

func (l *acts) Record(_ context.Context, e audit.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.events = append(l.events, e)
	}
	return l.err
}

func TestAManifestIsOnRecordBeforeItIsServed(t *testing.T) {
	t.Parallel()
	db := openStore(t, filepath.Join(t.TempDir(), "db"))
	defer func() { check(t, db.Close()) }()
	source, log := &publication{}, &acts{err: audit.ErrUnavailable}
	source.change([]ssh.PublicKey{newKey(t).PublicKey()}, "list")
	p := &publisher{source: source, signer: newKey(t), store: db, audit: log, log: slog.New(slog.DiscardHandler)}
	if text, _, err := p.Manifest(t.Context()); !errors.Is(err, audit.ErrUnavailable) || text != nil {
		t.Errorf("without an audit log: %q, %v", text, err)
	}
	if _, err := db.Get(t.Context(), manifestRecord); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("without an audit log, the store has a manifest: %v", err)
	}
	log.err = nil
	m := next(t, p)
	next(t, p) // the same again is no act
	if len(log.events) != 2 || log.events[0].Outcome != audit.Unknown || log.events[1].Outcome != audit.Success {
		t.Fatalf("the audit log has %+v", log.events)
	}
	for _, e := range log.events {
		if d := e.Detail; e.Action != audit.AdminAct || d["act"] != "ca.manifest" || d["version"] != strconv.FormatInt(m.Version, 10) ||
			d["trust_sha256"] != m.Trust.SHA256 || d["revocation_sha256"] != m.Revocation.SHA256 || d["keys"] != "1" {
			t.Errorf("the audit log has %+v", e)
		}
	}
}

func openStore(t *testing.T, path string) *bolt.DB {
	t.Helper()
	db, err := bolt.Open(bolt.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// next asks for the manifest and checks its signature.
func next(t *testing.T, p *publisher) nodesync.Manifest {
	t.Helper()
	text, sig, err := p.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nodesync.Verify([]ssh.PublicKey{p.signer.PublicKey()}, nodesync.Namespace, text, sig); err != nil {
		t.Fatal(err)
	}
	m, err := nodesync.ParseManifest(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTheVersionOfTheManifestRisesWithEachChangeAndOverTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		db := openStore(t, filepath.Join(dir, "db"))
		defer func() { check(t, db.Close()) }()
		source, signer := &publication{}, newKey(t)
		first, second := newKey(t).PublicKey(), newKey(t).PublicKey()
		source.change([]ssh.PublicKey{first}, "list")
		open := func() *publisher {
			return &publisher{source: source, signer: signer, store: db, audit: &acts{}, log: slog.New(slog.DiscardHandler)}
		}
		p := open()
		one := next(t, p)
		if one.Keys[0] != (nodesync.Key{Fingerprint: ssh.FingerprintSHA256(first), State: "active"}) || one.Revocation != nodesync.Sum([]byte("list")) {
			t.Errorf("got %+v", one)
		}
		if again := next(t, p); again.Version != one.Version {
			t.Errorf("nothing changed, and version %d became %d", one.Version, again.Version)
		}
		if again := next(t, open()); again.Version != one.Version {
			t.Errorf("another process makes version %d of version %d", again.Version, one.Version)
		}
		source.change([]ssh.PublicKey{first, second}, "list")
		two := next(t, p)
		if two.Version <= one.Version || len(two.Keys) != 2 || two.Keys[1].State != "pending" {
			t.Errorf("after version %d: %+v", one.Version, two)
		}
		source.change([]ssh.PublicKey{first, second}, "another list")
		three := next(t, p)
		if three.Version <= two.Version {
			t.Errorf("after version %d: %+v", two.Version, three)
		}
		time.Sleep(manifestLife/2 + time.Second)
		four := next(t, p)
		if four.Version <= three.Version || !four.ExpiresAt.After(three.ExpiresAt) {
			t.Errorf("half its life later, version %d is followed by %+v", three.Version, four)
		}
		p.signer = newKey(t)
		p.latest.Store(nil)
		if five := next(t, p); five.Version <= four.Version {
			t.Errorf("with a new distribution key, version %d is followed by %d", four.Version, five.Version)
		}
		source.change(nil, "list with all keys")
		if none := next(t, p); len(none.Keys) != 0 || none.Trust.Size != 0 {
			t.Errorf("after a compromise without a standby: %+v", none)
		}
	})
}

func TestAfterARestoreTheVersionIsAboveAllBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		source, signer := &publication{}, newKey(t)
		source.change([]ssh.PublicKey{newKey(t).PublicKey()}, "list")
		db := openStore(t, filepath.Join(dir, "db"))
		p := &publisher{source: source, signer: signer, store: db, audit: &acts{}, log: slog.New(slog.DiscardHandler)}
		next(t, p)
		time.Sleep(time.Hour)
		source.change(source.keys, "a later list")
		last := next(t, p)
		check(t, db.Close())

		time.Sleep(time.Minute)
		db = openStore(t, filepath.Join(dir, "empty")) // the worst of backups
		defer func() { check(t, db.Close()) }()
		p = &publisher{source: source, signer: signer, store: db, audit: &acts{}, log: slog.New(slog.DiscardHandler)}
		if m := next(t, p); m.Version <= last.Version {
			t.Errorf("version %d came after version %d: nodes would refuse it", m.Version, last.Version)
		}
	})
}

func TestProcessesOnOneStorePublishTheSameManifest(t *testing.T) {
	t.Parallel()
	db := openStore(t, filepath.Join(t.TempDir(), "db"))
	defer func() { check(t, db.Close()) }()
	source, signer := &publication{}, newKey(t)
	key := newKey(t).PublicKey()
	var texts [8][]byte
	for round := range 5 {
		source.change([]ssh.PublicKey{key}, string(rune('a'+round)))
		var wg sync.WaitGroup
		for i := range texts {
			wg.Go(func() {
				p := &publisher{source: source, signer: signer, store: store.Store(db), audit: &acts{}, log: slog.New(slog.DiscardHandler)}
				var err error
				if texts[i], _, err = p.Manifest(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for i := range texts {
			if !bytes.Equal(texts[i], texts[0]) {
				t.Errorf("round %d: two manifests:\n%s\n%s", round, texts[0], texts[i])
			}
		}
	}
}
