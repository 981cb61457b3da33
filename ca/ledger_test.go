package ca

import (
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/store"
)

func TestLedgerYieldsRowsBySerial(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 20 {
		if _, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)}); err != nil {
			t.Fatal(err)
		}
	}
	last, n := uint64(0), 0
	for row, err := range w.Ledger(t.Context()) {
		if err != nil || row.Serial <= last {
			t.Fatalf("serial %d after %d, %v", row.Serial, last, err)
		}
		last, n = row.Serial, n+1
	}
	if n != 20 {
		t.Errorf("%d rows", n)
	}
	for range w.Ledger(t.Context()) {
		break // must not be asked for more
	}
}

func TestLookupTellsUnknownFromUnavailable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, serial := range []uint64{0, 1, math.MaxUint64} {
		if _, err := w.Lookup(t.Context(), serial); !errors.Is(err, ErrNotFound) {
			t.Errorf("serial %d: %v", serial, err)
		}
	}
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Lookup(t.Context(), 1); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) {
		t.Errorf("closed store: %v", err)
	}
}

func TestDamagedRowsAreErrorsAndTheRestIsRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for key, value := range map[string]string{
		ledgerKey(1): "{", ledgerKey(2): `{"serial":"3"}`, ledgerKey(3): `{"serial":"3"}`,
	} {
		if _, err := w.db.Put(t.Context(), store.Entry{Key: key, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	var damaged, good int
	for row, err := range w.Ledger(t.Context()) {
		switch {
		case err != nil && strings.Contains(err.Error(), "is damaged"):
			damaged++
		case err == nil && row.Serial == 3:
			good++
		default:
			t.Errorf("row %+v, %v", row, err)
		}
	}
	if damaged != 2 || good != 1 {
		t.Errorf("%d damaged and %d good rows", damaged, good)
	}
}

func TestLedgerReportsAStoreThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Store = brokenStore{c.Store} })
	n := 0
	for _, err := range w.Ledger(t.Context()) {
		if n++; !errors.Is(err, ErrUnavailable) {
			t.Errorf("error is %v", err)
		}
	}
	if n != 1 {
		t.Errorf("%d rows", n)
	}
}

func TestRowsOutliveTheirCertificatesByTheRetention(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.LedgerRetention = time.Hour })
		defer w.close(t)
		cert, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(unixTime(cert.ValidBefore).Add(time.Hour - time.Second)))
		if _, err := w.Lookup(t.Context(), cert.Serial); err != nil {
			t.Errorf("a second before the retention ends: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := w.Lookup(t.Context(), cert.Serial); !errors.Is(err, ErrNotFound) {
			t.Errorf("a second after: %v", err)
		}
		if rows := w.rows(t); len(rows) != 0 {
			t.Errorf("%d rows", len(rows))
		}
	})
}

func TestLedgerSurvivesARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cert, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	w.close(t)
	again := openWorld(t, filepath.Clean(w.dir), w.key)
	if row, err := again.Lookup(t.Context(), cert.Serial); err != nil || row.KeyID != cert.KeyId {
		t.Errorf("row %+v, %v", row, err)
	}
}
