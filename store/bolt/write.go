package bolt

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"

	"sallyport/store"
	"sallyport/store/internal/groupcommit"
)

// pruneBatch bounds how many expired entries one transaction removes, so that a
// large backlog does not hold up writers.
const pruneBatch = 500

// errUnchanged rolls back a transaction that has nothing to make durable.
var errUnchanged = errors.New("nothing changed")

// An op is one queued operation. Only the writer goroutine touches it between
// being queued and being done.
type op struct {
	apply func(tx *bbolt.Tx, op *op) error // an error fails the whole batch

	entry   store.Entry // what to put or delete; then the result
	changed bool
	more    bool  // prune: expired entries remain
	err     error // the result of this operation alone
}

// Put writes e if its revision is still the current one. ctx ends the wait only
// until the operation is taken into a transaction.
func (db *DB) Put(ctx context.Context, e store.Entry) (store.Entry, error) {
	if err := store.CheckEntry(e); err != nil {
		return store.Entry{}, err
	}
	o := &op{apply: put, entry: e}
	if err := db.do(ctx, o); err != nil {
		return store.Entry{}, err
	}
	return o.entry, nil
}

// Delete removes the entry if its revision is e.Revision. ctx ends the wait only
// until the operation is taken into a transaction.
func (db *DB) Delete(ctx context.Context, e store.Entry) error {
	if err := store.CheckKey(e.Key); err != nil {
		return err
	}
	return db.do(ctx, &op{apply: remove, entry: e})
}

func (db *DB) do(ctx context.Context, o *op) error {
	err := db.writer.Do(ctx, o)
	if errors.Is(err, groupcommit.ErrClosed) {
		return store.ErrClosed
	}
	if err != nil {
		return err
	}
	return o.err
}

// commit runs a batch as one transaction. The results of the operations, also
// the conflicts, hold only if the transaction does: a conflict may be with an
// earlier operation of the same batch.
func (db *DB) commit(batch []*op) {
	err := db.db.Update(func(tx *bbolt.Tx) error {
		changed := false
		for _, o := range batch {
			if err := o.apply(tx, o); err != nil {
				return err
			}
			changed = changed || o.changed
		}
		if !changed {
			return errUnchanged
		}
		return nil
	})
	if err == nil || errors.Is(err, errUnchanged) {
		return
	}
	for _, o := range batch {
		o.err = translate(err)
	}
}

func put(tx *bbolt.Tx, o *op) error {
	entries, key := tx.Bucket([]byte(entriesBucket)), []byte(o.entry.Key)
	old, stored, ok := o.load(entries)
	if !ok {
		return nil
	}
	var current uint64
	if stored && old.live(time.Now()) {
		current = old.revision
	}
	if o.entry.Revision != current {
		o.err = store.ErrConflict
		return nil
	}
	if stored {
		if err := unindex(tx, old.expiry, key); err != nil {
			return err
		}
	}
	revision, err := entries.NextSequence()
	if err != nil {
		return err
	}
	r := record{revision: revision, expiry: toExpiry(o.entry.Expires), value: o.entry.Value}
	if r.expiry != never {
		index := tx.Bucket([]byte(expiriesBucket))
		if err := index.Put(expiryKey(r.expiry, key), nil); err != nil {
			return err
		}
	}
	o.entry.Revision, o.entry.Expires, o.changed = revision, fromExpiry(r.expiry), true
	return entries.Put(key, r.encode())
}

func remove(tx *bbolt.Tx, o *op) error {
	entries, key := tx.Bucket([]byte(entriesBucket)), []byte(o.entry.Key)
	old, stored, ok := o.load(entries)
	switch {
	case !ok:
		return nil
	case !stored || !old.live(time.Now()):
		o.err = store.ErrNotFound
		return nil
	case old.revision != o.entry.Revision:
		o.err = store.ErrConflict
		return nil
	}
	o.changed = true
	return errors.Join(unindex(tx, old.expiry, key), entries.Delete(key))
}

// pruneExpired removes the entries that expired first, at most pruneBatch.
func pruneExpired(tx *bbolt.Tx, o *op) error {
	entries, index := tx.Bucket([]byte(entriesBucket)), tx.Bucket([]byte(expiriesBucket))
	now := time.Now().UnixMilli()
	// Collected first: deleting under a bbolt cursor may skip its next item.
	var due [][]byte
	c := index.Cursor()
	for k, _ := c.First(); k != nil && decodeExpiry(k) <= now; k, _ = c.Next() {
		if len(due) == pruneBatch {
			o.more = true
			break
		}
		due = append(due, bytes.Clone(k))
	}
	for _, k := range due {
		o.changed = true
		if err := errors.Join(entries.Delete(k[8:]), index.Delete(k)); err != nil {
			return err
		}
	}
	return nil
}

// load reads the record under the operation's key. One that is damaged fails
// this operation (ok is false), not the others of its batch.
func (o *op) load(entries *bbolt.Bucket) (r record, stored, ok bool) {
	b := entries.Get([]byte(o.entry.Key))
	if b == nil {
		return record{}, false, true
	}
	r, o.err = decode([]byte(o.entry.Key), b)
	return r, true, o.err == nil
}

func unindex(tx *bbolt.Tx, expiry int64, key []byte) error {
	if expiry == never {
		return nil
	}
	return tx.Bucket([]byte(expiriesBucket)).Delete(expiryKey(expiry, key))
}

// prune removes expired entries every interval until ctx ends. A backlog goes in
// bounded transactions, between which writers have their turn.
func (db *DB) prune(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for more := true; more; {
			o := &op{apply: pruneExpired}
			err := db.do(ctx, o)
			if err != nil && ctx.Err() == nil {
				db.log.LogAttrs(ctx, slog.LevelError, "expired entries not removed, will try again", slog.Any("error", err))
			}
			more = o.more && err == nil
		}
	}
}
