package sealed

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
)

var passphrase = []byte("correct horse battery")

// freshly returns content sealed under the passphrase.
func freshly(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, w, content)
	return b.Bytes()
}

func fill(t testing.TB, w *Writer, content []byte) {
	t.Helper()
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// one is a header with its cipher: stretching the passphrase takes most of a
// second under the race detector, so most tests share it.
var one = sync.OnceValue(func() opener {
	head := make([]byte, header-tagBytes)
	copy(head, magic)
	c, err := aead(passphrase, head)
	if err != nil {
		panic(err)
	}
	return opener{c.Seal(head, nonce(0, check), nil, nil), c}
})

// sealing returns content sealed under the passphrase and the shared header.
func sealing(t testing.TB, content []byte) []byte {
	t.Helper()
	b := bytes.NewBuffer(bytes.Clone(one().head))
	fill(t, seal(b, one().aead), content)
	return b.Bytes()
}

// opening opens what is sealed, and returns all that came out before an error.
func opening(secret, text []byte) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(text), secret)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// An opener opens files with its header, and others as everybody does.
type opener struct {
	head []byte
	aead cipher.AEAD
}

func (o opener) opening(text []byte) ([]byte, error) {
	rest, same := bytes.CutPrefix(text, o.head)
	if !same {
		return opening(passphrase, text)
	}
	return io.ReadAll(open(bytes.NewReader(rest), o.aead))
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func TestWhatIsSealedOpensWhateverItsLength(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, chunkBytes - 1, chunkBytes, 2*chunkBytes + 17} {
		content := random(n)
		text := sealing(t, content)
		if got, err := one().opening(text); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
		}
		r := open(iotest.OneByteReader(bytes.NewReader(text[header:])), one().aead)
		if err := iotest.TestReader(r, content); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestTwoSealingsOfOneContentHaveNothingInCommon(t *testing.T) {
	t.Parallel()
	content := make([]byte, 1000)
	a, b := freshly(t, content), freshly(t, content)
	if bytes.Equal(a[len(magic):header-tagBytes], b[len(magic):header-tagBytes]) {
		t.Error("the salts are equal")
	}
	if bytes.Equal(a[header:header+64], b[header:header+64]) {
		t.Error("the same content looks the same")
	}
	if bytes.Contains(a, content[:32]) {
		t.Error("the content stands in the file")
	}
}

func TestAWrongPassphraseOpensNothing(t *testing.T) {
	t.Parallel()
	text := sealing(t, random(100))
	for _, wrong := range []string{"", "correct horse battery "} {
		if got, err := opening([]byte(wrong), text); !errors.Is(err, ErrPassphrase) || len(got) > 0 {
			t.Errorf("%q: %d bytes, %v", wrong, len(got), err)
		}
	}
}

func TestAShortPassphraseIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := NewWriter(io.Discard, []byte("eleven char")); err == nil {
		t.Error("eleven characters were taken")
	}
}

func TestEveryChangedBitAndEveryCutIsFound(t *testing.T) {
	t.Parallel()
	content := random(2*chunkBytes + 100)
	text := sealing(t, content)
	// Around every border: the header, the tags, the chunks.
	var at []int
	for _, border := range []int{0, header, header + chunkBytes, header + chunkBytes + tagBytes, header + 2*(chunkBytes+tagBytes), len(text)} {
		for _, d := range []int{-1, 0, 1} {
			if i := border + d; i >= 0 && i < len(text) && !slices.Contains(at, i) {
				at = append(at, i)
			}
		}
	}
	o := one()
	for _, i := range at {
		changed := bytes.Clone(text)
		changed[i] ^= 1
		o.wantRefusal(t, fmt.Sprintf("bit changed in byte %d", i), content, changed)
		o.wantRefusal(t, fmt.Sprintf("cut after %d bytes", i), content, text[:i])
	}
}

func (o opener) wantRefusal(t *testing.T, what string, content, text []byte) {
	t.Helper()
	got, err := o.opening(text)
	if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrPassphrase) && !errors.Is(err, ErrDamaged) {
		t.Errorf("%s: %v", what, err)
	}
	if !bytes.HasPrefix(content, got) {
		t.Errorf("%s: bytes came out that were never sealed", what)
	}
}

func TestMovedRepeatedAndAddedChunksAreFound(t *testing.T) {
	t.Parallel()
	content := random(3 * chunkBytes)
	text := sealing(t, content)
	const whole = chunkBytes + tagBytes
	chunk := func(i int) []byte { return text[header+i*whole : header+(i+1)*whole] }
	other, o := freshly(t, content), one()
	for name, forged := range map[string][]byte{
		"two exchanged":       slices.Concat(text[:header], chunk(1), chunk(0), chunk(2)),
		"one repeated":        slices.Concat(text[:header], chunk(0), chunk(0), chunk(1), chunk(2)),
		"one left out":        slices.Concat(text[:header], chunk(0), chunk(2)),
		"the last left out":   slices.Concat(text[:header], chunk(0), chunk(1)),
		"one of another file": slices.Concat(text[:header], chunk(0), other[header+whole:]),
		"bytes added":         append(bytes.Clone(text), 0),
		"a file added":        slices.Concat(text, other),
		"all chunks left out": text[:header],
	} {
		o.wantRefusal(t, name, content, forged)
	}
}

func TestErrorsOfTheDiskAreNotTakenForDamage(t *testing.T) {
	t.Parallel()
	text := sealing(t, random(3*chunkBytes))
	broken := errors.New("disk is broken")
	r, err := NewReader(io.MultiReader(bytes.NewReader(text[:2*chunkBytes]), iotest.ErrReader(broken)), passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, broken) {
		t.Errorf("reading: %v", err)
	}
	w, err := NewWriter(&failing{after: 1, err: broken}, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 2*chunkBytes+1)); !errors.Is(err, broken) {
		t.Errorf("writing: %v", err)
	}
	if err := w.Close(); !errors.Is(err, broken) {
		t.Errorf("Close after a failed write: %v", err)
	}
}

// failing fails after a number of writes.
type failing struct {
	after int
	err   error
}

func (f *failing) Write(p []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, f.err
	}
	return len(p), nil
}

func TestAClosedWriterTakesNothing(t *testing.T) {
	t.Parallel()
	w, err := NewWriter(io.Discard, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write([]byte("x")); err == nil || n != 0 {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
	if w.Close() == nil {
		t.Error("the second Close said that it had sealed an end")
	}
}

func TestDamageIsNotTakenForAWrongPassphrase(t *testing.T) {
	t.Parallel()
	text := freshly(t, random(100)) // in one chunk
	for name, damaged := range map[string][]byte{"cut": text[:len(text)-1], "cut after the header": text[:header], "added to": append(bytes.Clone(text), 0)} {
		if _, err := opening(passphrase, damaged); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMemoryDoesNotDependOnTheLength runs alone: it measures the whole process.
func TestMemoryDoesNotDependOnTheLength(t *testing.T) { //nolint:paralleltest // see above
	reader, writer := io.Pipe()
	const length = 64 << 20
	result := make(chan error, 1)
	go func() {
		w, err := NewWriter(writer, passphrase)
		if err == nil {
			_, err = io.CopyN(w, zeros{}, length)
		}
		if err == nil {
			err = w.Close()
		}
		writer.CloseWithError(err)
		result <- err
	}()
	r, err := NewReader(reader, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := io.Copy(io.Discard, r)
	runtime.ReadMemStats(&after)
	if err := errors.Join(err, <-result); err != nil || n != length {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 8<<20 {
		t.Errorf("%d bytes were allocated for %d bytes of content", spent, length)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestFormatIsStable opens a file that version 1 wrote: old backups must open.
func TestFormatIsStable(t *testing.T) {
	t.Parallel()
	path := filepath.Join("testdata", "version1.sealed")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := opening(passphrase, text)
	if err != nil || string(got) != "sealed by version 1\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzReader(f *testing.F) {
	seeds, err := filepath.Glob(filepath.Join("testdata", "*.sealed"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	good := map[string]bool{}
	var o opener
	for _, path := range seeds {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		good[string(text)] = true
		c, err := aead(passphrase, text[:header-tagBytes])
		if err != nil {
			f.Fatal(err)
		}
		o = opener{text[:header], c}
		f.Add(text)
		f.Add(text[:len(text)-1])
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := o.opening(text); err == nil && !good[string(text)] {
			t.Errorf("%d bytes came out of a file that nobody sealed", len(got))
		}
	})
}
