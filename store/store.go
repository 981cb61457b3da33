// Package store is the contract between the packages that own records and the
// drivers that keep them.
//
// A store keeps bytes under keys, with a revision and an expiry; it knows
// nothing of certificates, users or commands. The owner of a record owns its key
// prefix and its encoding, so a new record type touches no driver. The package
// storetest holds the conformance suite that each driver must pass.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Limits that every driver enforces, so that a record which one driver takes is
// taken by all of them.
const (
	MaxKeyBytes   = 512
	MaxValueBytes = 1 << 20
)

var (
	// ErrNotFound says that no live entry stands under the key: it never did, it
	// was deleted, or it has expired.
	ErrNotFound = errors.New("store: no such entry")
	// ErrConflict says that the entry changed since its revision was read. The
	// caller reads it again and decides anew.
	ErrConflict = errors.New("store: entry changed meanwhile")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("store: closed")
)

// An Entry is one record.
type Entry struct {
	// Key is 1 to MaxKeyBytes bytes of printable ASCII without spaces; parts are
	// separated by '/', the first part names the owner ("ledger/…").
	Key string
	// Value is 0 to MaxValueBytes bytes. A driver neither keeps the slice that
	// it is given nor shares the one that it returns.
	Value []byte
	// Revision is the swap token: what Get returned must be given to Put and
	// Delete. 0 means "there is no such entry yet".
	Revision uint64
	// Expires is when the entry stops existing, with a resolution of one second
	// or better; the zero time means never.
	Expires time.Time
}

// CheckEntry returns an error if e.Key or e.Value breaks the limits above. Every
// driver calls it before it writes.
func CheckEntry(e Entry) error {
	if len(e.Value) > MaxValueBytes {
		return fmt.Errorf("store: value of %d bytes under key %.64q, at most %d are taken", len(e.Value), e.Key, MaxValueBytes)
	}
	return CheckKey(e.Key)
}

// CheckKey returns an error if no entry can have this key. Every driver calls it
// before it reads or deletes.
func CheckKey(key string) error {
	if key == "" {
		return errors.New("store: empty key")
	}
	return CheckPrefix(key)
}

// CheckPrefix returns an error if no key can begin with prefix. The empty prefix
// is that of every key.
func CheckPrefix(prefix string) error {
	if len(prefix) > MaxKeyBytes {
		return fmt.Errorf("store: key of %d bytes %.64q…, at most %d are taken", len(prefix), prefix, MaxKeyBytes)
	}
	for i := range len(prefix) {
		if c := prefix[i]; c <= ' ' || c > '~' {
			return fmt.Errorf("store: key %q holds byte %#02x; only printable ASCII without spaces is taken", prefix, c)
		}
	}
	return nil
}

// Store keeps entries durably. A driver MUST be safe for concurrent use, MUST
// have made a change durable before Put or Delete returns nil, MUST hide entries
// from the moment they expire, and MUST remove them at some time after that.
type Store interface {
	// Get returns the live entry under key, or ErrNotFound.
	Get(ctx context.Context, key string) (Entry, error)
	// Put writes e if the current revision of e.Key is e.Revision (0: absent or
	// expired), and returns e with its new revision; else ErrConflict. Revisions
	// of a key only rise, also across deletion.
	Put(ctx context.Context, e Entry) (Entry, error)
	// Delete removes the entry if its revision is e.Revision; ErrConflict if it
	// changed, ErrNotFound if it is gone.
	Delete(ctx context.Context, e Entry) error
	// List yields the live entries whose keys begin with prefix, in byte order
	// of the keys. It MUST NOT block writers for as long as the consumer takes,
	// and an error ends the sequence.
	List(ctx context.Context, prefix string) iter.Seq2[Entry, error]
	// Close releases the store; later calls return ErrClosed.
	Close() error
}
