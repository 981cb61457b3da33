package warm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The kinds of frames. A frame is its kind, the token of the command that it belongs
// to, the size of its body as 4 bytes, and the body; worker.py has the other side.
const (
	kindHello   = 'H' // worker: it is there; "PROTOCOL PYTHON"
	kindCommand = 'C' // start a command
	kindInput   = 'I' // bytes of standard input
	kindEnd     = 'E' // the input has ended
	kindAck     = 'A' // both ways: so many bytes of a stream were taken
	kindSignal  = 'K' // signal the process group: a name without "SIG"
	kindStarted = 'S' // worker: the command runs, for so many µs when this was sent
	kindRefused = 'N' // worker: no process could be had; errno
	kindStdout  = '1' // worker: output
	kindStderr  = '2'
	kindExit    = 'X' // worker: killed or not, and the status or the signal's number
	kindOver    = 'Z' // worker: ended, and nobody has its output open any more
)

const (
	tokenSize = 16
	headSize  = 1 + tokenSize + 4
	// maxFrame bounds the body of a frame, as MOST of the worker does.
	maxFrame = 256 << 10
	// window is how many bytes of output may be on the way or wait to be read, as
	// WINDOW of the worker says.
	window = 256 << 10
	// inputWindow is the same for the input.
	inputWindow = 64 << 10
	// inputChunk bounds the input in one frame, and so a packet of SSH.
	inputChunk = 16 << 10
)

type token [tokenSize]byte

// errFrame says that the other side does not keep to the protocol.
var errFrame = errors.New("warm session sent what it must not")

// A frame is one message of a worker.
type frame struct {
	kind  byte
	token token
	body  []byte
}

// readFrame reads a frame into buffer, which it grows as needed: body is valid until
// the next call.
func readFrame(r io.Reader, buffer *[]byte) (frame, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{kind: head[0], token: token(head[1 : 1+tokenSize])}
	size := binary.BigEndian.Uint32(head[1+tokenSize:])
	if size > maxFrame {
		return frame{}, fmt.Errorf("%w: frame of %d bytes", errFrame, size)
	}
	if int(size) > cap(*buffer) {
		*buffer = make([]byte, size)
	}
	f.body = (*buffer)[:size]
	if _, err := io.ReadFull(r, f.body); err != nil {
		return frame{}, err
	}
	return f, nil
}

// appendFrame appends a frame to b.
func appendFrame[T []byte | string](b []byte, kind byte, t token, body T) []byte {
	b = append(b, kind)
	b = append(b, t[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body))) //nolint:gosec // bounded by its callers
	return append(b, body...)
}

// number is the body of a frame that holds nothing else.
func number(body []byte) (uint32, error) {
	if len(body) != 4 {
		return 0, fmt.Errorf("%w: number of %d bytes", errFrame, len(body))
	}
	return binary.BigEndian.Uint32(body), nil
}

// An exit is the body of kindExit.
type exit struct {
	killed bool
	status uint32 // or the number of the signal
}

func parseExit(body []byte) (exit, error) {
	if len(body) != 5 || body[0] > 1 {
		return exit{}, fmt.Errorf("%w: exit of %d bytes", errFrame, len(body))
	}
	return exit{killed: body[0] == 1, status: binary.BigEndian.Uint32(body[1:])}, nil
}

// A Command is what a worker starts.
type Command struct {
	// Line is for the user's login shell; Argv is a program and its arguments, which
	// is found in PATH and started without a shell. One of them is set.
	Line string
	Argv []string
	// Env has variables that are set beside those of the session, as NAME=VALUE.
	Env []string
	// Directory is where the command starts; "" means the home directory.
	Directory string
	// Input says that the command gets a standard input; if not, that is at its end.
	Input bool
}

// Payload is the command as Job.SendRequest takes it. The strings have no NUL bytes.
func (c Command) Payload() []byte {
	argv := c.Argv
	if c.Line != "" {
		argv = []string{"", c.Line}
	}
	input := ""
	if c.Input {
		input = "1"
	}
	b := appendStrings(nil, argv)
	b = appendStrings(b, c.Env)
	return appendStrings(b, []string{c.Directory, input})
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(list))) //nolint:gosec // bounded by its callers
	for _, s := range list {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // bounded by its callers
		b = append(b, s...)
	}
	return b
}
