package executor

import (
	"slices"
	"strings"
	"testing"
)

const findLine = "f 644 12 1000 100 1700000000.1234567890 1700000001.0 1700000002.5 99 2049 1\x00a\nb\x00\x00" +
	"l 777 3 0 0 1 2 3 4 5 1\x00sub/link\x00../x\x00"

// FuzzListing feeds the parser of find's output in two parts, which must make no
// difference.
func FuzzListing(f *testing.F) {
	f.Add([]byte(findLine), 10)
	f.Add([]byte("f 644 12 1 1 1 2 3 4 5 1\x00../../etc\x00\x00"), 3)
	f.Add([]byte("d 755 -1 1 1 1 2 3 4 5 1\x00x\x00\x00"), 0)
	f.Fuzz(func(t *testing.T, output []byte, at int) {
		parse := func(parts ...[]byte) (names []string, ok bool) {
			l := &listing{yield: func(i FileInfo) error {
				if !below(i.Name) || strings.ContainsRune(i.Name, 0) || i.Size < 0 {
					t.Errorf("entry %+v", i)
				}
				names = append(names, i.Name)
				return nil
			}}
			for _, p := range parts {
				if _, err := l.Write(p); err != nil {
					return names, false
				}
			}
			return names, l.end() == nil
		}
		at = max(0, min(at, len(output)))
		whole, ok := parse(output)
		parts, partsOK := parse(output[:at], output[at:])
		if !slices.Equal(whole, parts) || ok != partsOK {
			t.Errorf("%q (%t) in one part, %q (%t) in two", whole, ok, parts, partsOK)
		}
	})
}

func TestListingIsParsed(t *testing.T) {
	var got []FileInfo
	l := &listing{yield: func(i FileInfo) error {
		got = append(got, i)
		return nil
	}}
	if _, err := l.Write([]byte(findLine)); err != nil || l.end() != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	file, link := got[0], got[1]
	if file.Name != "a\nb" || file.Mode != 0o100644 || file.Size != 12 || file.UID != 1000 || file.GID != 100 ||
		file.Accessed.Unix() != 1700000000 || file.Modified.Unix() != 1700000001 || file.Changed.Unix() != 1700000002 ||
		file.Inode != 99 || file.Device != 2049 || file.Links != 1 {
		t.Errorf("%+v", file)
	}
	if link.Name != "sub/link" || link.Target != "../x" || !link.IsLink() {
		t.Errorf("%+v", link)
	}
}
