package sftp

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"
)

const protocolVersion = 3

// minPacket is a type and a number.
const minPacket = 5

// The types of packets (draft-ietf-secsh-filexfer-02, section 3).
const (
	typeInit     = 1
	typeVersion  = 2
	typeOpen     = 3
	typeClose    = 4
	typeRead     = 5
	typeWrite    = 6
	typeLstat    = 7
	typeFstat    = 8
	typeSetstat  = 9
	typeFsetstat = 10
	typeOpendir  = 11
	typeReaddir  = 12
	typeRemove   = 13
	typeMkdir    = 14
	typeRmdir    = 15
	typeRealpath = 16
	typeStat     = 17
	typeRename   = 18
	typeReadlink = 19
	typeSymlink  = 20
	typeStatus   = 101
	typeHandle   = 102
	typeData     = 103
	typeName     = 104
	typeAttrs    = 105
	typeExtended = 200
	typeReply    = 201
)

// A Code is a status (section 7).
type Code uint32

// The codes that a peer can give. What OpenSSH means by them is in sftp-server.c,
// errno_to_portable.
const (
	OK               Code = 0
	EOF              Code = 1
	NoSuchFile       Code = 2 // also: not a directory, too many links
	PermissionDenied Code = 3
	Failure          Code = 4 // also: exists, not empty, no space, is a directory
	BadMessage       Code = 5 // also: name too long, invalid argument
	Unsupported      Code = 8
)

// A StatusError is a request that the peer refused.
type StatusError struct {
	Code Code
	// Message is the peer's, at most 256 bytes; it is not to be trusted.
	Message string
}

func (e *StatusError) Error() string { return fmt.Sprintf("sftp: status %d (%q)", e.Code, e.Message) }

// Attrs are the attributes of a file (section 5). Flags says which are known.
type Attrs struct {
	Flags    uint32
	Size     uint64
	UID, GID uint32
	Mode     uint32 // with the file type, as in stat(2)
	ATime    uint32 // seconds since 1970
	MTime    uint32
}

// The bits of Attrs.Flags.
const (
	HasSize  = 1
	HasOwner = 2
	HasMode  = 4
	HasTimes = 8

	hasExtended = 0x80000000
)

// A Name is an entry of a directory.
type Name struct {
	Name  string
	Attrs Attrs
}

// A request is a packet being made.
type request struct{ body []byte }

var requests = sync.Pool{New: func() any { return &request{body: make([]byte, 0, 512)} }}

func newRequest(kind byte) *request {
	r := requests.Get().(*request) //nolint:forcetypeassert // nothing else is in the pool
	r.body = append(r.body[:0], 0, 0, 0, 0, kind, 0, 0, 0, 0)
	return r
}

func (r *request) u32(n uint32) *request {
	r.body = binary.BigEndian.AppendUint32(r.body, n)
	return r
}

func (r *request) u64(n uint64) *request {
	r.body = binary.BigEndian.AppendUint64(r.body, n)
	return r
}

func (r *request) text(s string) *request {
	r.u32(uint32(len(s))) //nolint:gosec // paths and handles are short
	r.body = append(r.body, s...)
	return r
}

func (r *request) bytes(p []byte) *request {
	r.u32(uint32(len(p))) //nolint:gosec // at most Chunk
	r.body = append(r.body, p...)
	return r
}

func (r *request) attrs(a Attrs) *request {
	r.u32(a.Flags)
	if a.Flags&HasSize != 0 {
		r.u64(a.Size)
	}
	if a.Flags&HasOwner != 0 {
		r.u32(a.UID).u32(a.GID)
	}
	if a.Flags&HasMode != 0 {
		r.u32(a.Mode)
	}
	if a.Flags&HasTimes != 0 {
		r.u32(a.ATime).u32(a.MTime)
	}
	return r
}

// finish sets length and number.
func (r *request) finish(id uint32) {
	binary.BigEndian.PutUint32(r.body, uint32(len(r.body)-4)) //nolint:gosec // at most Chunk and a bit
	binary.BigEndian.PutUint32(r.body[5:], id)
}

func (r *request) opens() bool { return r.body[4] == typeOpen || r.body[4] == typeOpendir }

// take appends the packet to b and gives r back for reuse.
func (r *request) take(b []byte) []byte {
	b = append(b, r.body...)
	requests.Put(r)
	return b
}

// A frame is a packet of the peer, without its length.
type frame struct {
	body   []byte
	pooled *[]byte
}

// frames holds the bodies of packets with data, which a transfer has many of.
var frames = sync.Pool{New: func() any { b := make([]byte, Chunk+64); return &b }}

func newFrame(size int) frame {
	const small = 1 << 10
	if size <= small || size > Chunk+64 {
		return frame{body: make([]byte, size)}
	}
	pooled := frames.Get().(*[]byte) //nolint:forcetypeassert // nothing else is in the pool
	return frame{body: (*pooled)[:size], pooled: pooled}
}

// free ends the use of a frame.
func (f frame) free() {
	if f.pooled != nil {
		frames.Put(f.pooled)
	}
}

func (f frame) kind() byte { return f.body[0] }
func (f frame) id() uint32 { return binary.BigEndian.Uint32(f.body[1:]) }

// version reads the first packet of the peer.
func (f frame) version() (map[string]string, error) {
	if f.kind() != typeVersion || f.id() < protocolVersion {
		return nil, fmt.Errorf("%w: packet type %d with version %d", ErrProtocol, f.kind(), f.id())
	}
	p := parser{rest: f.body[minPacket:]}
	extensions := make(map[string]string)
	for len(p.rest) > 0 && !p.short {
		name := p.text()
		extensions[name] = p.text()
	}
	return extensions, p.err()
}

// status returns nil for OK, or a StatusError, or io.EOF for the code of that name.
func (f frame) status() error {
	if f.kind() != typeStatus {
		return fmt.Errorf("%w: packet type %d is no status", ErrProtocol, f.kind())
	}
	p := parser{rest: f.body[minPacket:]}
	code := Code(p.u32())
	if err := p.err(); err != nil {
		return err
	}
	if code == OK {
		return nil
	}
	if code == EOF {
		return io.EOF
	}
	const most = 256
	message := p.text() // which old servers leave out
	return &StatusError{Code: code, Message: strings.Clone(message[:min(len(message), most)])}
}

// handle reads a handle, which is at most 256 bytes long (section 6.2).
func (f frame) handle() (string, error) {
	const longest = 256
	if f.kind() != typeHandle {
		return "", f.refusal()
	}
	p := parser{rest: f.body[minPacket:]}
	h := p.text()
	if len(h) > longest {
		p.short = true
	}
	return h, p.err()
}

func (f frame) data() ([]byte, error) {
	if f.kind() != typeData {
		return nil, f.refusal()
	}
	p := parser{rest: f.body[minPacket:]}
	d := p.take(int(p.u32()))
	return d, p.err()
}

func (f frame) attrs() (Attrs, error) {
	if f.kind() != typeAttrs {
		return Attrs{}, f.refusal()
	}
	p := parser{rest: f.body[minPacket:]}
	a := p.attrs()
	return a, p.err()
}

func (f frame) names() ([]Name, error) {
	if f.kind() != typeName {
		return nil, f.refusal()
	}
	const shortest = 12 // two lengths and the flags
	p := parser{rest: f.body[minPacket:]}
	count := p.u32()
	if int64(count) > int64(len(p.rest)/shortest) {
		return nil, fmt.Errorf("%w: %d names in %d bytes", ErrProtocol, count, len(p.rest))
	}
	names := make([]Name, 0, count)
	for range count {
		name := p.text()
		p.take(int(p.u32())) // the long name is for people
		names = append(names, Name{Name: name, Attrs: p.attrs()})
	}
	return names, p.err()
}

// refusal is the error of an answer that is not what was asked for.
func (f frame) refusal() error {
	if err := f.status(); err != nil {
		return err
	}
	return fmt.Errorf("%w: success without a result", ErrProtocol)
}

// A parser reads fields. After one that is cut short all others are zero.
type parser struct {
	rest  []byte
	short bool
}

func (p *parser) err() error {
	if p.short {
		return fmt.Errorf("%w: packet is malformed", ErrProtocol)
	}
	return nil
}

func (p *parser) take(n int) []byte {
	if p.short || n < 0 || n > len(p.rest) {
		p.short = true
		return nil
	}
	field := p.rest[:n]
	p.rest = p.rest[n:]
	return field
}

func (p *parser) u32() uint32 {
	if field := p.take(4); field != nil {
		return binary.BigEndian.Uint32(field)
	}
	return 0
}

func (p *parser) u64() uint64 {
	if field := p.take(8); field != nil {
		return binary.BigEndian.Uint64(field)
	}
	return 0
}

func (p *parser) text() string { return string(p.take(int(p.u32()))) }

func (p *parser) attrs() Attrs {
	a := Attrs{Flags: p.u32()}
	if a.Flags&HasSize != 0 {
		a.Size = p.u64()
	}
	if a.Flags&HasOwner != 0 {
		a.UID, a.GID = p.u32(), p.u32()
	}
	if a.Flags&HasMode != 0 {
		a.Mode = p.u32()
	}
	if a.Flags&HasTimes != 0 {
		a.ATime, a.MTime = p.u32(), p.u32()
	}
	if a.Flags&hasExtended != 0 {
		for n := p.u32(); n > 0 && !p.short; n-- {
			p.take(int(p.u32()))
			p.take(int(p.u32()))
		}
	}
	return a
}
