package krl

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // lists that others wrote can name keys by it
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"golang.org/x/crypto/ssh"
)

var (
	errShort = errors.New("ends too early")
	errCAKey = errors.New("key of a CA cannot be read")
	// errSignature: OpenSSH has dropped signed lists, and versions that are in use
	// differ about them.
	errSignature = errors.New("signed lists are not supported")
)

// Parse reads a list of at most MaxBytes bytes. It refuses what ssh-keygen
// refuses, and besides a list with a signature; the text of its errors quotes no
// more than numbers.
func Parse(data []byte) (*List, error) {
	l, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	return l, nil
}

func parse(data []byte) (*List, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%d bytes are more than %d", len(data), MaxBytes)
	}
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return nil, errors.New("does not begin as one")
	}
	r := reader{rest: rest}
	if version := r.uint32(); r.err == nil && version != formatVersion {
		return nil, fmt.Errorf("format version %d is not %d", version, formatVersion)
	}
	l := &List{Version: r.uint64()}
	if generated := int64(r.uint64()); generated != 0 { //nolint:gosec // a date beyond int64 is nonsense either way
		l.Generated = time.Unix(generated, 0).UTC()
	}
	r.uint64() // flags
	r.string() // reserved
	l.Comment = r.text()
	certificates, room := make(map[string]*revokedBy), maxRanges
	var order []*revokedBy
	for r.more() {
		kind, body := r.byte(), r.section()
		if r.err != nil {
			break
		}
		switch kind {
		case sectionCertificates:
			order = l.certificates(&body, certificates, order, &room)
		case sectionKeys:
			for body.more() {
				l.Keys = append(l.Keys, readKey(body.string()))
			}
		case sectionSHA1:
			for body.more() {
				l.SHA1 = append(l.SHA1, [sha1.Size]byte(body.exactly(sha1.Size)))
			}
		case sectionSHA256:
			for body.more() {
				l.SHA256 = append(l.SHA256, [sha256.Size]byte(body.exactly(sha256.Size)))
			}
		case sectionSignature:
			return nil, errSignature
		default:
			return nil, fmt.Errorf("section of unknown type %d", kind)
		}
		if body.err != nil {
			return nil, fmt.Errorf("section of type %d: %w", kind, body.err)
		}
	}
	for _, c := range order {
		if len(c.ranges)+len(c.keyIDs) == 0 {
			continue
		}
		l.Certificates = append(l.Certificates, Certificates{CA: c.ca, Serials: join(c.ranges), KeyIDs: c.keyIDs})
	}
	return l, r.err
}

// maxRanges bounds those of all CAs in a list that is read: in a bitmap of two bytes
// there may be eight, which take sixty times its memory. As many serials as this fill a
// list of MaxBytes, unless they are dense, as random ones never are.
const maxRanges = 1 << 20

// revokedBy collects what several sections say about one CA.
type revokedBy struct {
	room   *int // ranges that the list may still have
	ca     ssh.PublicKey
	ranges []Range
	keyIDs []string
}

// certificates reads a section about one CA. Sections of one CA are joined.
func (l *List) certificates(r *reader, known map[string]*revokedBy, order []*revokedBy, room *int) []*revokedBy {
	wire := r.string()
	r.string() // reserved
	if r.err != nil {
		return order
	}
	c := known[string(wire)]
	if c == nil {
		c = &revokedBy{room: room}
		if len(wire) > 0 {
			key, err := ssh.ParsePublicKey(wire)
			if err != nil || !bytes.Equal(plain(key).Marshal(), wire) {
				r.fail(errCAKey)
				return order
			}
			c.ca = key
		}
		known[string(wire)] = c
		order = append(order, c)
	}
	for r.more() {
		kind, body := r.byte(), r.section()
		if r.err == nil {
			c.read(kind, &body)
			r.fail(body.err)
		}
	}
	return order
}

func (c *revokedBy) read(kind byte, r *reader) {
	switch kind {
	case certSerialList:
		for r.more() {
			n := r.uint64()
			c.add(r, n, n)
		}
	case certSerialRange:
		first, last := r.uint64(), r.uint64()
		c.add(r, first, last)
	case certSerialBitmap:
		offset, number := r.uint64(), r.number()
		c.addBitmap(r, offset, number)
	case certKeyIDs:
		for r.more() {
			c.keyIDs = append(c.keyIDs, r.text())
		}
	default:
		r.fail(fmt.Errorf("certificates by unknown type %#x", kind))
	}
	r.end()
}

func (c *revokedBy) add(r *reader, first, last uint64) {
	if r.err == nil && (first == 0 || first > last) {
		r.fail(fmt.Errorf("serials from %d to %d are no range above 0", first, last))
	}
	if r.err != nil {
		return
	}
	if n := len(c.ranges); n > 0 && c.ranges[n-1].Last == first-1 {
		c.ranges[n-1].Last = last
		return
	}
	if *c.room--; *c.room < 0 {
		r.fail(fmt.Errorf("more than %d ranges of serials", maxRanges))
		return
	}
	c.ranges = append(c.ranges, Range{first, last})
}

func (c *revokedBy) addBitmap(r *reader, offset uint64, number []byte) {
	if r.err != nil || len(number) == 0 {
		return
	}
	top := uint64(len(number)*8 - 1 - bits.LeadingZeros8(number[0])) //nolint:gosec // a few thousand, and the first byte is not 0
	if offset+top < offset {
		r.fail(fmt.Errorf("bitmap at %d goes beyond the last serial", offset))
		return
	}
	for bit := range top + 1 {
		if number[len(number)-1-int(bit/8)]>>(bit%8)&1 == 1 {
			c.add(r, offset+bit, offset+bit)
		}
	}
}

// readKey keeps a key that this program does not know, or that it would write
// differently, as the bytes that it is: sshd compares nothing else.
func readKey(wire []byte) ssh.PublicKey {
	key, err := ssh.ParsePublicKey(wire)
	if err == nil && bytes.Equal(plain(key).Marshal(), wire) {
		return key
	}
	return opaqueKey(wire)
}

// An opaqueKey is a key of unknown form.
type opaqueKey []byte

func (k opaqueKey) Type() string                        { return "unknown" }
func (k opaqueKey) Marshal() []byte                     { return bytes.Clone(k) }
func (k opaqueKey) Verify([]byte, *ssh.Signature) error { return errors.New("key of unknown type") }

// A reader takes a list apart. After the first error it returns zeros.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) more() bool { return r.err == nil && len(r.rest) > 0 }

func (r *reader) take(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.rest)) {
		r.err = errShort
	}
	if r.err != nil {
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

// end demands that nothing is left.
func (r *reader) end() {
	if len(r.rest) > 0 {
		r.fail(errors.New("bytes follow its end"))
	}
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) string() []byte { return r.take(uint64(r.uint32())) }

func (r *reader) section() reader { return reader{rest: r.string()} }

// exactly returns a string of n bytes, whatever comes.
func (r *reader) exactly(n int) []byte {
	s := r.string()
	if r.err == nil && len(s) != n {
		r.fail(fmt.Errorf("hash of %d bytes instead of %d", len(s), n))
	}
	if r.err != nil {
		return make([]byte, n)
	}
	return s
}

// text returns a string without NUL. Like OpenSSH (sshbuf_get_cstring), it takes
// one at the very end for the end.
func (r *reader) text() string {
	s := bytes.TrimSuffix(r.string(), []byte{0})
	if bytes.IndexByte(s, 0) >= 0 {
		r.fail(errors.New("text holds a NUL"))
		return ""
	}
	return string(s)
}

// number returns a number without leading zeros (sshbuf_get_bignum2_bytes_direct).
func (r *reader) number() []byte {
	s := r.string()
	switch {
	case r.err != nil || len(s) == 0:
		return nil
	case s[0]&0x80 != 0:
		r.fail(errors.New("number is negative"))
		return nil
	case len(s) > maxBitmapBits/8+1 || len(s) == maxBitmapBits/8+1 && s[0] != 0:
		r.fail(fmt.Errorf("number has more than %d bits", maxBitmapBits))
		return nil
	}
	return bytes.TrimLeft(s, "\x00")
}
