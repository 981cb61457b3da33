package bolt

import (
	"encoding/binary"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"sallyport/store"
)

// The file has two buckets.
//
//	entries   key -> revision (8 bytes) | expiry (8 bytes) | value
//	expiries  expiry (8 bytes) | key -> nothing
//
// Numbers are big endian, so that the expiries stand in the order of time. An
// expiry is in milliseconds since 1970, 0 for never. Revisions come from the
// sequence of the first bucket: one counter for all keys, so a key that was
// deleted and written again never sees an old revision.
const (
	entriesBucket  = "entries"
	expiriesBucket = "expiries"

	headerBytes = 16
	never       = 0
)

func createBuckets(tx *bbolt.Tx) error {
	for _, name := range []string{entriesBucket, expiriesBucket} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	return nil
}

// record is the stored form of an entry. Its value belongs to the transaction.
type record struct {
	revision uint64
	expiry   int64
	value    []byte
}

func (r record) live(now time.Time) bool {
	return r.expiry == never || now.UnixMilli() < r.expiry
}

func (r record) encode() []byte {
	b := make([]byte, 0, headerBytes+len(r.value))
	b = binary.BigEndian.AppendUint64(b, r.revision)
	b = appendExpiry(b, r.expiry)
	return append(b, r.value...)
}

// entry copies r out of the transaction.
func (r record) entry(key string) store.Entry {
	return store.Entry{
		Key:      key,
		Value:    append([]byte{}, r.value...),
		Revision: r.revision,
		Expires:  fromExpiry(r.expiry),
	}
}

func decode(key, b []byte) (record, error) {
	if len(b) < headerBytes {
		return record{}, fmt.Errorf("store: record under key %q has %d bytes, the file is damaged", key, len(b))
	}
	return record{
		revision: binary.BigEndian.Uint64(b),
		expiry:   decodeExpiry(b[8:]),
		value:    b[headerBytes:],
	}, nil
}

// toExpiry rounds down, so that an entry is never visible past its time.
func toExpiry(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return max(t.UnixMilli(), 1)
}

func fromExpiry(ms int64) time.Time {
	if ms == never {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func appendExpiry(b []byte, ms int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(ms)) //nolint:gosec // toExpiry makes it positive
}

func decodeExpiry(b []byte) int64 {
	return int64(binary.BigEndian.Uint64(b)) //nolint:gosec // written by appendExpiry
}

// expiryKey is the index entry of a key that expires.
func expiryKey(ms int64, key []byte) []byte {
	return append(appendExpiry(make([]byte, 0, 8+len(key)), ms), key...)
}
