package executor

import (
	"bytes"
	"testing"
)

func TestTheMarkIsFoundWhereverItIsCut(t *testing.T) {
	t.Parallel()
	for size := 1; size < 80; size++ {
		var w bytes.Buffer
		for _, to := range []*bytes.Buffer{nil, &w} {
			a := newAfterMark(nil)
			got := &a.reply
			if to != nil {
				a.w, got = to, to
			}
			text := []byte("noise\n" + a.mark[:5] + "\n\n" + a.mark + "\n\nout\n" + a.mark + "\n")
			for len(text) > 0 {
				n := min(size, len(text))
				if _, err := a.Write(text[:n]); err != nil {
					t.Fatal(err)
				}
				text = text[n:]
			}
			if want := "\nout\n" + a.mark + "\n"; got.String() != want || !a.seen {
				t.Errorf("in pieces of %d: %q", size, got)
			}
		}
	}
}
