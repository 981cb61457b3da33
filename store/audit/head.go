package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"

	"sallyport/internal/private"
)

const (
	headName = "head"
	// slotBytes is a page and a sector of any disk, so that a write which power
	// loss interrupts damages one slot and never both.
	slotBytes = 4096
)

// ErrLocked says that another process has the audit log open.
var ErrLocked = errors.New("audit log is in use by another process")

// headFile holds the position of the last acknowledged line. It is written after
// the line is durable, alternately into one of two slots; the higher sequence
// counts. It also carries the lock of the folder.
type headFile struct {
	file *os.File
	last position // what the file holds durably
	slot int      // where the next position goes
	// needed is the oldest file that one of the slots names: the log may have to be
	// recovered from there.
	needed atomic.Int64
}

// openHead locks the head file of dir and creates it if need be.
func openHead(dir string) (*headFile, error) {
	f, err := private.OpenFile(filepath.Join(dir, headName), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrLocked
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &headFile{file: f}, nil
}

// write makes p the head. If it fails, the other slot still has the last one.
func (h *headFile) write(p position) error {
	if _, err := h.file.WriteAt(encodeSlot(p), int64(h.slot)*slotBytes); err != nil {
		return err
	}
	if err := syncData(h.file); err != nil {
		return err
	}
	h.needed.Store(int64(min(h.last.file, p.file)))
	h.last, h.slot = p, 1-h.slot
	return nil
}

// slots returns the positions that the two slots of a head file hold, nil for a
// slot that is damaged.
func slots(r io.ReaderAt) (found [2]*position, err error) {
	for i := range found {
		b := make([]byte, slotBytes)
		n, err := r.ReadAt(b, int64(i)*slotBytes)
		if err != nil && !errors.Is(err, io.EOF) {
			return found, err
		}
		if p, ok := decodeSlot(b[:n]); ok {
			found[i] = &p
		}
	}
	return found, nil
}

// newest returns the slot that counts, or -1.
func newest(found [2]*position) int {
	switch {
	case found[0] == nil && found[1] == nil:
		return -1
	case found[0] == nil:
		return 1
	case found[1] == nil || found[0].sequence >= found[1].sequence:
		return 0
	default:
		return 1
	}
}

// headRecord is the text of a slot, sealed like a line of the log.
type headRecord struct {
	File     int    `json:"sallyport.file"`
	Sequence uint64 `json:"event.sequence"`
	Hash     string `json:"sallyport.head"`
}

func encodeSlot(p position) []byte {
	b := make([]byte, 0, slotBytes)
	b = append(b, `{"sallyport.file":`...)
	b = strconv.AppendInt(b, int64(p.file), 10)
	b = append(b, `,"event.sequence":`...)
	b = strconv.AppendUint(b, p.sequence, 10)
	b = append(b, `,"sallyport.head":"`...)
	b = append(b, p.hash...)
	b, _ = seal(append(b, '"'), 0)
	return append(b, bytes.Repeat([]byte(" "), slotBytes-len(b))...)
}

// decodeSlot accepts only what encodeSlot writes, byte for byte.
func decodeSlot(b []byte) (position, bool) {
	var r headRecord
	if err := json.Unmarshal(b, &r); err != nil || len(r.Hash) != hashHex {
		return position{}, false
	}
	p := position{file: r.File, sequence: r.Sequence, hash: r.Hash}
	return p, bytes.Equal(b, encodeSlot(p))
}

// syncData makes the content of a file durable, with its size but without the
// times, which would cost a second write.
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			if err != nil {
				return fmt.Errorf("sync %q: %w", f.Name(), err)
			}
			return nil
		}
	}
}
