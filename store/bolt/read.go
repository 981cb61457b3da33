package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"sallyport/store"
)

// A page bounds what List reads in one transaction. A long read transaction would
// keep bbolt from reusing pages and from growing its memory map.
const (
	pageEntries = 256
	pageBytes   = 1 << 20
)

// Get returns the live entry under key, or [store.ErrNotFound].
func (db *DB) Get(ctx context.Context, key string) (store.Entry, error) {
	if err := errors.Join(ctx.Err(), store.CheckKey(key)); err != nil {
		return store.Entry{}, err
	}
	var e store.Entry
	err := db.view(func(entries *bbolt.Bucket) error {
		b := entries.Get([]byte(key))
		if b == nil {
			return store.ErrNotFound
		}
		r, err := decode([]byte(key), b)
		if err != nil {
			return err
		}
		if !r.live(time.Now()) {
			return store.ErrNotFound
		}
		e = r.entry(key)
		return nil
	})
	return e, err
}

// List yields the live entries under prefix, in byte order. It reads them in
// pages, each page in a transaction of its own: a page shows one moment, and an
// entry that changes meanwhile is seen as it is when its page is read.
func (db *DB) List(ctx context.Context, prefix string) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		if err := store.CheckPrefix(prefix); err != nil {
			yield(store.Entry{}, err)
			return
		}
		for from, more := []byte(prefix), true; more; {
			if err := ctx.Err(); err != nil {
				yield(store.Entry{}, err)
				return
			}
			var page []store.Entry
			var err error
			page, from, err = db.page([]byte(prefix), from)
			for _, e := range page {
				// The consumer may have been slow.
				if !e.Expires.IsZero() && !time.Now().Before(e.Expires) {
					continue
				}
				if !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(store.Entry{}, err)
				return
			}
			more = from != nil
		}
	}
}

// page reads live entries from the key from on, and where the next page begins
// (nil: there is none).
func (db *DB) page(prefix, from []byte) (page []store.Entry, next []byte, err error) {
	now, size := time.Now(), 0
	err = db.view(func(entries *bbolt.Bucket) error {
		c := entries.Cursor()
		seen := 0
		for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if seen == pageEntries || size >= pageBytes {
				next = bytes.Clone(k)
				return nil
			}
			r, err := decode(k, v)
			if err != nil {
				return err
			}
			seen++ // expired ones count as well: they cost time
			if r.live(now) {
				page = append(page, r.entry(string(k)))
				size += len(v)
			}
		}
		return nil
	})
	return page, next, err
}

func (db *DB) view(read func(entries *bbolt.Bucket) error) error {
	err := db.db.View(func(tx *bbolt.Tx) error {
		return read(tx.Bucket([]byte(entriesBucket)))
	})
	return translate(err)
}

// translate turns bbolt's errors into those of the contract.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return store.ErrClosed
	case errors.Is(err, store.ErrNotFound):
		return store.ErrNotFound
	default:
		return fmt.Errorf("store: %w", err)
	}
}
