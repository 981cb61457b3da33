// Package sealed encrypts a stream of any length under a passphrase.
//
// Guarantee: what [Reader] returned without an error up to io.EOF is what was
// written, whole and in order. A wrong passphrase, a changed bit, a missing, added
// or moved piece is an error, and no byte that was not authenticated is ever
// returned. Memory does not depend on the length.
//
// Threat: whoever has the file can guess passphrases. Each guess costs Argon2id
// with 64 MiB and three passes (the second recommendation of RFC 9106, section 4).
//
// Caveat: a Reader returns what comes before the damage. Its user must not act
// before io.EOF.
//
// Format, version 1: the line "sallyport-sealed-1\n", 32 bytes of salt, a check of
// 16 bytes, then chunks. The salted passphrase gives, through Argon2id and
// HKDF-SHA256 over line and salt, a key that serves this stream alone. Each chunk
// is at most 64 KiB of content, sealed with AES-256-GCM; its nonce is an 11-byte
// counter and a byte that is 1 for the last chunk and 0 for all others. The check
// is an empty chunk of which that byte is 2: it tells a wrong passphrase from
// damage (STREAM; Hoang, Reyhanitabar,
// Rogaway and Vizár, CRYPTO 2015). Only the last chunk is shorter than the others,
// and it is empty only if the stream is.
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"
)

const (
	magic     = "sallyport-sealed-1\n"
	saltBytes = 32
	tagBytes  = 16
	header    = len(magic) + saltBytes + tagBytes

	chunkBytes = 64 << 10

	// The last byte of a nonce.
	inner, final, check = 0, 1, 2

	argonPasses  = 3
	argonKiB     = 64 << 10
	argonThreads = 4

	// MinPassphraseBytes is the shortest passphrase that New takes. It keeps out
	// mistakes; strength comes from what the passphrase is.
	MinPassphraseBytes = 12
)

var (
	// ErrFormat says that the stream does not begin as a sealed one does.
	ErrFormat = errors.New("not a sealed file of this version")
	// ErrPassphrase says that the check does not open: the passphrase is wrong, or
	// the first 67 bytes were changed, which nobody can tell apart.
	ErrPassphrase = errors.New("the passphrase does not open the file")
	// ErrDamaged says that a chunk does not open: the stream was changed or cut
	// off.
	ErrDamaged = errors.New("the file was changed or cut off")
)

// aead makes the cipher of the stream that begins with head, line and salt.
func aead(passphrase, head []byte) (cipher.AEAD, error) {
	stretched := argon2.IDKey(passphrase, head[len(magic):], argonPasses, argonKiB, argonThreads, 32)
	key, err := hkdf.Key(sha256.New, stretched, head, "sallyport sealed stream", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// nonce is that of chunk number n.
func nonce(n uint64, kind byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 3, 12), n), kind)
}

// A Writer seals what is written to it.
type Writer struct {
	to   io.Writer
	aead cipher.AEAD
	buf  []byte // content of the chunk that is being filled
	out  []byte // a sealed chunk
	n    uint64
	err  error // after which nothing is written any more
}

// NewWriter writes the header to w and returns a Writer. Without Close, what was
// written does not open.
func NewWriter(w io.Writer, passphrase []byte) (*Writer, error) {
	if len(passphrase) < MinPassphraseBytes {
		return nil, fmt.Errorf("the passphrase has less than %d characters", MinPassphraseBytes)
	}
	head := make([]byte, header-tagBytes, header)
	copy(head, magic)
	_, _ = rand.Read(head[len(magic):]) // never fails: crypto/rand ends the process instead
	c, err := aead(passphrase, head)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(c.Seal(head, nonce(0, check), nil, nil)); err != nil {
		return nil, err
	}
	return seal(w, c), nil
}

// seal begins after the header.
func seal(w io.Writer, c cipher.AEAD) *Writer {
	return &Writer{to: w, aead: c, buf: make([]byte, 0, chunkBytes), out: make([]byte, 0, chunkBytes+tagBytes)}
}

// Write seals p. A full chunk is held back until more follows: the last one is
// sealed differently.
func (w *Writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if w.err == nil && len(w.buf) == chunkBytes {
			w.err = w.flush(inner)
		}
		if w.err != nil {
			return n, w.err
		}
		take := min(len(p), chunkBytes-len(w.buf))
		w.buf = append(w.buf, p[:take]...)
		p, n = p[take:], n+take
	}
	return n, w.err
}

// Close seals the last chunk. It does not close the underlying writer.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	err := w.flush(final)
	w.err = errors.New("sealed stream is closed")
	return err
}

func (w *Writer) flush(kind byte) error {
	w.out = w.aead.Seal(w.out[:0], nonce(w.n, kind), w.buf, nil)
	w.buf, w.n = w.buf[:0], w.n+1
	_, err := w.to.Write(w.out)
	return err
}

// A Reader opens a sealed stream.
type Reader struct {
	from io.Reader
	aead cipher.AEAD
	in   []byte // a sealed chunk, with one byte of the next if there is one
	held int    // bytes in in
	buf  []byte // content of a chunk
	open []byte // the part of buf that was not yet read
	n    uint64
	err  error // what Read returns once open is empty
}

// NewReader reads the header. Its errors wrap ErrFormat or ErrPassphrase, if they
// are not those of r.
func NewReader(r io.Reader, passphrase []byte) (*Reader, error) {
	head := make([]byte, header)
	_, err := io.ReadFull(r, head)
	if short(err) || err == nil && string(head[:len(magic)]) != magic {
		return nil, ErrFormat
	}
	if err != nil {
		return nil, err
	}
	c, err := aead(passphrase, head[:header-tagBytes])
	if err != nil {
		return nil, err
	}
	if _, err := c.Open(nil, nonce(0, check), head[header-tagBytes:], nil); err != nil {
		return nil, ErrPassphrase
	}
	return open(r, c), nil
}

// open begins after the header.
func open(r io.Reader, c cipher.AEAD) *Reader {
	return &Reader{from: r, aead: c, in: make([]byte, chunkBytes+tagBytes+1), buf: make([]byte, chunkBytes)}
}

// Read returns authenticated content only. io.EOF says that all of the stream was
// read and is good; an error that wraps ErrDamaged, that it is not.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.open) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.next()
	}
	n := copy(p, r.open)
	r.open = r.open[n:]
	return n, nil
}

// next opens a chunk. It reads one byte further, to know whether it is the last.
func (r *Reader) next() {
	n, err := io.ReadFull(r.from, r.in[r.held:])
	n += r.held
	last := short(err)
	if err != nil && !last {
		r.err = err
		return
	}
	chunk, kind := r.in[:n], byte(final)
	if !last {
		chunk, kind = r.in[:n-1], inner
	}
	r.open, err = r.aead.Open(r.buf[:0], nonce(r.n, kind), chunk, nil)
	switch {
	case err != nil || last && r.n > 0 && len(r.open) == 0:
		r.open, r.err = nil, fmt.Errorf("%w: chunk %d does not open", ErrDamaged, r.n)
	case last:
		r.err = io.EOF
	default:
		r.in[0], r.held = r.in[n-1], 1
	}
	r.n++
}

// short says that a read ended with its source.
func short(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
