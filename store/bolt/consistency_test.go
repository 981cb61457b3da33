package bolt

import (
	"errors"
	"testing"

	"go.etcd.io/bbolt"
)

// requireConsistent checks the file: bbolt's own invariants, and that the index
// of expiries names exactly the entries that expire.
func requireConsistent(t testing.TB, db *DB) {
	t.Helper()
	// A writing transaction, because bbolt checks against the list of free pages
	// of this moment, which the pruner may be changing.
	err := db.db.Update(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("bbolt: %v", err)
		}
		entries, index := tx.Bucket([]byte(entriesBucket)), tx.Bucket([]byte(expiriesBucket))
		expiring := 0
		err := entries.ForEach(func(k, v []byte) error {
			r, err := decode(k, v)
			if err != nil {
				return err
			}
			if r.revision > entries.Sequence() {
				t.Errorf("entry %q has revision %d, above the sequence %d", k, r.revision, entries.Sequence())
			}
			if r.expiry == never {
				return nil
			}
			expiring++
			if c := index.Cursor(); !seeks(c, expiryKey(r.expiry, k)) {
				t.Errorf("entry %q is not in the index of expiries", k)
			}
			return nil
		})
		if n := index.Stats().KeyN; n != expiring {
			t.Errorf("the index of expiries has %d keys for %d expiring entries", n, expiring)
		}
		if err != nil {
			t.Error(err)
		}
		return errUnchanged
	})
	if !errors.Is(err, errUnchanged) {
		t.Error(err)
	}
}

func seeks(c *bbolt.Cursor, key []byte) bool {
	k, _ := c.Seek(key)
	return string(k) == string(key)
}
