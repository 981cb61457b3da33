package krl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	magic         = "SSHKRL\n\x00"
	formatVersion = 1

	sectionCertificates = 1
	sectionKeys         = 2
	sectionSHA1         = 3
	sectionSignature    = 4
	sectionSHA256       = 5

	certSerialList   = 0x20
	certSerialRange  = 0x21
	certSerialBitmap = 0x22
	certKeyIDs       = 0x23
)

// Marshal writes the list. Serials take the smallest form that keeps each range
// whole; keys, hashes and key IDs are sorted, so that equal lists have equal bytes.
func (l *List) Marshal() ([]byte, error) {
	var generated uint64
	if !l.Generated.IsZero() {
		if l.Generated.Unix() < 0 {
			return nil, fmt.Errorf("revocation list: generated %s, before 1970", l.Generated)
		}
		generated = uint64(l.Generated.Unix()) //nolint:gosec // not negative
	}
	if strings.ContainsRune(l.Comment, 0) {
		return nil, errors.New("revocation list: comment holds a NUL")
	}
	w := []byte(magic)
	w = binary.BigEndian.AppendUint32(w, formatVersion)
	w = binary.BigEndian.AppendUint64(w, l.Version)
	w = binary.BigEndian.AppendUint64(w, generated)
	w = binary.BigEndian.AppendUint64(w, 0) // flags
	w = appendString(w, nil)                // reserved
	w = appendString(w, []byte(l.Comment))
	ranges := 0
	for _, c := range l.Certificates {
		if ranges += len(c.Serials); ranges > maxRanges {
			return nil, fmt.Errorf("revocation list: more than %d ranges of serials", maxRanges)
		}
		body, err := c.marshal()
		if err != nil {
			return nil, fmt.Errorf("revocation list: %w", err)
		}
		w = appendSection(w, sectionCertificates, body)
	}
	keys, err := l.keyBlobs()
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	w = appendSection(w, sectionKeys, joinStrings(keys))
	w = appendSection(w, sectionSHA1, joinStrings(blobs(l.SHA1, func(h [20]byte) []byte { return h[:] })))
	w = appendSection(w, sectionSHA256, joinStrings(blobs(l.SHA256, func(h [32]byte) []byte { return h[:] })))
	if len(w) > MaxBytes {
		return nil, fmt.Errorf("revocation list: %d bytes are more than %d", len(w), MaxBytes)
	}
	return w, nil
}

// marshal returns the body of a section, or nothing for nothing revoked.
func (c Certificates) marshal() ([]byte, error) {
	if err := c.Serials.check(); err != nil {
		return nil, err
	}
	var ca []byte
	if c.CA != nil {
		ca = plain(c.CA).Marshal()
	}
	if len(c.Serials)+len(c.KeyIDs) == 0 {
		return nil, nil
	}
	w := appendString(nil, ca)
	w = appendString(w, nil) // reserved
	w = appendSerials(w, c.Serials)
	for _, id := range c.KeyIDs {
		if strings.ContainsRune(id, 0) {
			return nil, fmt.Errorf("key ID %q holds a NUL", id)
		}
	}
	return appendSection(w, certKeyIDs, joinStrings(blobs(c.KeyIDs, func(id string) []byte { return []byte(id) }))), nil
}

func (l *List) keyBlobs() ([][]byte, error) {
	for _, k := range l.Keys {
		if k == nil || plain(k) == nil {
			return nil, errors.New("a key is missing")
		}
	}
	list := make([][]byte, 0, len(l.Keys))
	for _, k := range l.Keys {
		list = append(list, plain(k).Marshal())
	}
	return sorted(list), nil
}

func blobs[T any](items []T, blob func(T) []byte) [][]byte {
	list := make([][]byte, 0, len(items))
	for _, item := range items {
		list = append(list, blob(item))
	}
	return sorted(list)
}

// sorted sorts list and removes what stands twice.
func sorted(list [][]byte) [][]byte {
	slices.SortFunc(list, bytes.Compare)
	return slices.CompactFunc(list, bytes.Equal)
}

// appendSection appends a type and a body, unless the body is empty.
func appendSection(w []byte, kind byte, body []byte) []byte {
	if len(body) == 0 {
		return w
	}
	return appendString(append(w, kind), body)
}

func joinStrings(list [][]byte) (w []byte) {
	for _, s := range list {
		w = appendString(w, s)
	}
	return w
}

func appendString(w, s []byte) []byte {
	w = binary.BigEndian.AppendUint32(w, uint32(len(s))) //nolint:gosec // Marshal refuses what is longer than MaxBytes
	return append(w, s...)
}
