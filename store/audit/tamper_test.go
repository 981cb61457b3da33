package audit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestVerifyNamesWhatWasTamperedWith(t *testing.T) {
	t.Parallel()
	// The log has three files of about 12, 12 and 6 lines.
	for _, test := range []struct {
		name   string
		tamper func(t *testing.T, dir string)
		want   string
	}{
		{"byte of the first line", editLines(1, func(l [][]byte) [][]byte { l[0][40] ^= 1; return l }), "audit-000001.jsonl line 1: its bytes do not have the hash"},
		{"byte in the middle", editLines(2, func(l [][]byte) [][]byte { l[3][20] ^= 4; return l }), "audit-000002.jsonl line 4: its bytes do not have the hash"},
		{"byte of the last line", editLines(3, func(l [][]byte) [][]byte { l[len(l)-1][30] ^= 1; return l }), "audit-000003.jsonl line "},
		{"hash in upper case", editLines(1, func(l [][]byte) [][]byte {
			end := l[1][len(l[1])-hashHex-len(lineEnd):]
			copy(end, bytes.ToUpper(end))
			return l
		}), "audit-000001.jsonl line 2: its bytes do not have the hash"},
		{"line removed", editLines(1, func(l [][]byte) [][]byte { return slices.Delete(l, 4, 5) }), "audit-000001.jsonl line 5: it is event 6 where event 5 should be"},
		{"first line removed", editLines(1, func(l [][]byte) [][]byte { return l[1:] }), "audit-000001.jsonl line 1: it is event 2 where event 1 should be"},
		{"last line removed", editLines(3, func(l [][]byte) [][]byte { return l[:len(l)-1] }), "but event 30 was acknowledged: the end is missing"},
		{"last line cut", editLines(3, func(l [][]byte) [][]byte { l[len(l)-1] = l[len(l)-1][:50]; return l }), "it has no proper end"},
		{"final newline removed", editLines(3, func(l [][]byte) [][]byte { e := l[len(l)-1]; l[len(l)-1] = e[:len(e)-1]; return l }), "it has no proper end"},
		{"last line of a full file removed", editLines(1, func(l [][]byte) [][]byte { return l[:len(l)-1] }), "audit-000002.jsonl line 1: it is event"},
		{"two lines swapped", editLines(2, func(l [][]byte) [][]byte { l[1], l[2] = l[2], l[1]; return l }), "audit-000002.jsonl line 2: it is event"},
		{"line repeated", editLines(2, func(l [][]byte) [][]byte { return slices.Insert(l, 2, l[1]) }), "audit-000002.jsonl line 3: it is event"},
		{"empty line", editLines(1, func(l [][]byte) [][]byte { return slices.Insert(l, 2, []byte("\n")) }), "audit-000001.jsonl line 3: it has no proper end"},
		{"carriage return", editLines(1, func(l [][]byte) [][]byte {
			l[2] = append(bytes.TrimSuffix(l[2], []byte("\n")), "\r\n"...)
			return l
		}), "audit-000001.jsonl line 3: it has no proper end"},
		{"line without a hash", editLines(1, func(l [][]byte) [][]byte {
			l[2] = []byte(`{"event.sequence":3,"event.action":"exec.start` + strings.Repeat("x", 90) + `"}` + "\n")
			return l
		}), "audit-000001.jsonl line 3: it carries no hash"},
		{"line with its own hash but another past", editLines(1, func(l [][]byte) [][]byte {
			other := start()
			other.sequence, other.hash = 2, strings.Repeat("f", hashHex)
			l[2], _ = other.appendLine(nil, parseTime(l[2]), []byte(`,"event.action":"forged"`))
			return l
		}), "audit-000001.jsonl line 3: it does not follow event 2"},
		{"last line rewritten consistently", editLines(3, func(l [][]byte) [][]byte {
			before, err := parseLine(l[len(l)-2])
			if err != nil {
				t.Error(err)
			}
			at := position{file: 3, sequence: before.sequence, hash: before.hash}
			l[len(l)-1], _ = at.appendLine(nil, before.time, []byte(`,"event.action":"forged"`))
			return l
		}), "event 30 is not the one that the head file acknowledges"},
		{"overlong line", editLines(2, func(l [][]byte) [][]byte { return slices.Insert(l, 1, make([]byte, maxLineBytes+1)) }), "audit-000002.jsonl line 2: "},
		{"file emptied", editLines(2, func([][]byte) [][]byte { return nil }), "audit-000003.jsonl line 1: it is event"},
		{"first file removed", removeFile(fileName(1)), "audit-000001.jsonl is missing"},
		{"middle file removed", removeFile(fileName(2)), "audit-000002.jsonl is missing"},
		{"last file removed", removeFile(fileName(3)), "audit-000003.jsonl is missing"},
		{"head removed", removeFile(headName), "the head file is missing"},
		{"head emptied", func(t *testing.T, dir string) { write(t, dir, headName, nil) }, "the head file is damaged"},
		{"head damaged in one record", flipBit(headName, 8*300), "the head file is damaged in its record 1"},
		{"head damaged in the other", flipBit(headName, 8*(slotBytes+30)), "the head file is damaged in its record 2"},
		{"all files removed, head left", func(t *testing.T, dir string) {
			for n := 1; n <= 3; n++ {
				removeFile(fileName(n))(t, dir)
			}
		}, "audit-000001.jsonl is missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := privateDir(t, t.TempDir())
			fill(t, dir, 30, minMaxBytes)
			if files := verify(t, dir).Files; files != 3 {
				t.Fatalf("the log has %d files, want 3", files)
			}
			test.tamper(t, dir)
			_, err := Verify(dir)
			if !errors.Is(err, ErrChain) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Verify = %v\nwant ErrChain and %q", err, test.want)
			}
		})
	}
}

func TestVerifyOfAFolderWithoutLogIsAnErrorOfItsOwn(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing")} {
		if _, err := Verify(dir); !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrChain) {
			t.Errorf("Verify(%q) = %v, want ErrNotExist", dir, err)
		}
	}
}

func TestEveryFlippedBitOfALogIsFound(t *testing.T) {
	t.Parallel()
	dir := privateDir(t, t.TempDir())
	fill(t, dir, 1, 0)
	for name, step := range map[string]int{fileName(1): 1, headName: 211} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		good := read(t, dir, name)
		for bit := 0; bit < 8*len(good); bit += step {
			at := bit / 8
			if _, err := f.WriteAt([]byte{good[at] ^ 1<<(bit%8)}, int64(at)); err != nil {
				t.Fatal(err)
			}
			if _, err := Verify(dir); !errors.Is(err, ErrChain) {
				t.Fatalf("%s: bit %d of byte %d flipped: Verify = %v", name, bit%8, at, err)
			}
			if _, err := f.WriteAt(good[at:at+1], int64(at)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		verify(t, dir)
	}
}

// Not parallel: it measures what the process allocates.
func TestVerifyReadsAFileOfAnySizeWithBoundedMemory(t *testing.T) {
	dir := privateDir(t, t.TempDir())
	fill(t, dir, 3, 0)
	if err := os.Truncate(filepath.Join(dir, fileName(1)), 1<<30); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	report, err := Verify(dir)
	runtime.ReadMemStats(&after)
	if err != nil || report.Unfinished == 0 {
		t.Errorf("Verify of a log with a gigabyte of zeros behind it = %+v, %v", report, err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("Verify allocated %d bytes", n)
	}
}

func editLines(number int, edit func([][]byte) [][]byte) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		all := bytes.SplitAfter(read(t, dir, fileName(number)), []byte("\n"))
		write(t, dir, fileName(number), bytes.Join(edit(all[:len(all)-1]), nil))
	}
}

func removeFile(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func flipBit(name string, bit int) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		b := read(t, dir, name)
		b[bit/8] ^= 1 << (bit % 8)
		write(t, dir, name, b)
	}
}
