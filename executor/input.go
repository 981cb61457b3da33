package executor

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"sync"
)

// An input is a command's Stdin, which it counts and hashes as it flows. What was
// read last may not have reached a command that ended before.
type input struct {
	reader io.Reader

	mu    sync.Mutex // guards what follows
	sum   hash.Hash
	total int64
}

func newInput(r io.Reader) *input { return &input{reader: r, sum: sha256.New()} }

// Read implements io.Reader.
func (i *input) Read(p []byte) (int, error) {
	n, err := i.reader.Read(p)
	i.mu.Lock()
	defer i.mu.Unlock()
	_, _ = i.sum.Write(p[:n]) // never fails
	i.total += int64(n)
	return n, err
}

// taken returns what was read so far; a Read may still be under way.
func (i *input) taken() (size int64, digest string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.total, hex.EncodeToString(i.sum.Sum(nil))
}
