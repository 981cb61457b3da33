package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// Snapshot copies the store, as it is at one moment, into an unnamed file in the
// same folder, and returns that file, to be read from its beginning. Closing it
// gives the space back. Reads and writes go on meanwhile, except that a write
// which must grow the file waits for the copy: hence a copy at the speed of the
// disk first, and a reader that may be slow after it.
//
// The copy is a store file of its own: [Open] takes it.
func (db *DB) Snapshot(ctx context.Context) (_ *os.File, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(db.db.Path()), ".snapshot-*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("snapshot of store: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("snapshot of store: %w", err), f.Close())
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	err = db.db.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(contextWriter{ctx, f})
		return err
	})
	if err != nil {
		return nil, translate(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return f, nil
}

// contextWriter ends a copy when ctx ends.
type contextWriter struct {
	ctx context.Context //nolint:containedctx // it lives for one copy
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// Check reads the whole file and reports every inconsistency of its structure and
// every record that cannot be read.
func (db *DB) Check(ctx context.Context) error {
	return translate(db.db.View(func(tx *bbolt.Tx) error {
		var errs []error
		for err := range tx.Check() { // to its end: it closes the channel
			if len(errs) < 10 {
				errs = append(errs, err)
			}
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		return tx.Bucket([]byte(entriesBucket)).ForEach(func(k, v []byte) error {
			_, err := decode(k, v)
			return errors.Join(ctx.Err(), err)
		})
	}))
}
