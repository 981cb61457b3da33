package krl

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

func TestGoldenVectorIsReadAsItsDescriptionSays(t *testing.T) {
	t.Parallel()
	l := mustParse(t, unhex(t, golden))
	want := &List{
		Version: 7, Generated: time.Unix(1700000000, 0).UTC(),
		Certificates: []Certificates{{
			Serials: Serials{{1001, 1001}, {2000, 2010}, {3000, 3000}, {3007, 3007}}, KeyIDs: []string{"v1:bad"},
		}},
	}
	if diff := cmp.Diff(want, l); diff != "" {
		t.Error(diff)
	}
	for serial, revoked := range map[uint64]bool{
		1000: false, 1001: true, 1002: false, 1999: false, 2000: true, 2010: true, 2011: false,
		3000: true, 3001: false, 3007: true, 3008: false, 0: false,
	} {
		if got := l.Revokes(certificate(t, 1, 2, serial, "v1:good")); got != revoked {
			t.Errorf("serial %d is revoked: %t", serial, got)
		}
	}
	if !l.Revokes(certificate(t, 1, 2, 0, "v1:bad")) || l.Revokes(keyOf(t, 1)) || l.Revokes(nil) {
		t.Error("key ID is not matched, or a plain key is")
	}
	if data := mustMarshal(t, l); len(data) > 125 {
		t.Errorf("written again it has %d bytes, more than 125", len(data))
	}
}

func TestListThatRevokesNothingIsAValidFile(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]*List{
		"zero": {},
		"sections of nothing": {
			Certificates: []Certificates{{}, {CA: keyOf(t, 1), Serials: Serials{}, KeyIDs: []string{}}}, Keys: []ssh.PublicKey{},
		},
	} {
		data := mustMarshal(t, l)
		if !bytes.Equal(data, unhex(t, emptyList)) || len(data) != 44 {
			t.Errorf("%s: %x", name, data)
		}
		if ok, out := valid(t, data); !ok {
			t.Errorf("%s: ssh-keygen refuses it: %s", name, out)
		}
		if mustParse(t, data).Revokes(certificate(t, 1, 2, 1, "")) {
			t.Errorf("%s revokes", name)
		}
	}
}

// TestKeyRevokesWhatHangsOnIt: an entry for a key, plain or hashed, revokes the
// certificates over it and those that it signed.
func TestKeyRevokesWhatHangsOnIt(t *testing.T) {
	t.Parallel()
	wire := keyOf(t, 1).Marshal()
	keys := []ssh.PublicKey{
		keyOf(t, 1), certificate(t, 1, 9, 5, "over"), certificate(t, 9, 1, 5, "by"),
		keyOf(t, 9), certificate(t, 9, 8, 5, "neither"),
	}
	want := []bool{true, true, true, false, false}
	for name, l := range map[string]*List{
		"explicit":                    {Keys: []ssh.PublicKey{keyOf(t, 1)}},
		"explicit, as a certificate":  {Keys: []ssh.PublicKey{certificate(t, 1, 7, 1, "")}},
		"explicit, unknown neighbour": {Keys: []ssh.PublicKey{opaqueKey("\x00\x00\x00\x03new"), keyOf(t, 1)}},
		"SHA-256":                     {SHA256: [][32]byte{sha256.Sum256([]byte("x")), sha256.Sum256(wire)}},
		"SHA-1":                       {SHA1: [][20]byte{sha1.Sum(wire)}},
	} {
		data := mustMarshal(t, l)
		if diff := cmp.Diff(want, judge(t, t.TempDir(), data, keys)); diff != "" {
			t.Errorf("%s: ssh-keygen: %s", name, diff)
		}
		for _, list := range []*List{l, mustParse(t, data)} {
			for i, k := range keys {
				if list.Revokes(k) != want[i] {
					t.Errorf("%s: key %d is revoked: %t", name, i, !want[i])
				}
			}
		}
	}
}

func TestSerialsAreSortedAndJoined(t *testing.T) {
	t.Parallel()
	const top = math.MaxUint64
	for _, c := range []struct{ give, want []Range }{
		{nil, nil},
		{[]Range{{5, 5}, {1, 2}, {3, 4}}, []Range{{1, 5}}},
		{[]Range{{1, 10}, {2, 3}, {12, 12}}, []Range{{1, 10}, {12, 12}}},
		{[]Range{{top, top}, {1, top}, {7, 7}}, []Range{{1, top}}},
		{[]Range{{top, top}, {top - 2, top - 2}}, []Range{{top - 2, top - 2}, {top, top}}},
	} {
		got := mustSerials(t, c.give...)
		if diff := cmp.Diff(Serials(c.want), got); diff != "" {
			t.Errorf("%v: %s", c.give, diff)
		}
		if err := got.check(); err != nil {
			t.Errorf("%v: %v", c.give, err)
		}
	}
	for _, r := range []Range{{0, 0}, {0, 5}, {5, 4}} {
		if _, err := NewSerials(Range{1, 1}, r); err == nil {
			t.Errorf("%v is taken", r)
		}
	}
}

// TestWriterRefusesWhatWouldSpoilTheFile: sshd refuses every login when one entry
// is wrong, so such a file is never made.
func TestWriterRefusesWhatWouldSpoilTheFile(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]*List{
		"serial 0":          {Certificates: []Certificates{{Serials: Serials{{0, 3}}}}},
		"reversed range":    {Certificates: []Certificates{{Serials: Serials{{9, 3}}}}},
		"unsorted":          {Certificates: []Certificates{{Serials: Serials{{9, 9}, {3, 3}}}}},
		"overlapping":       {Certificates: []Certificates{{Serials: Serials{{1, 9}, {9, 12}}}}},
		"NUL in a key ID":   {Certificates: []Certificates{{KeyIDs: []string{"a\x00b"}}}},
		"NUL in comment":    {Comment: "a\x00"},
		"no key":            {Keys: []ssh.PublicKey{nil}},
		"date before Unix":  {Generated: time.Unix(-5, 0)},
		"more than allowed": {Comment: strings.Repeat("x", MaxBytes)},
	} {
		if data, err := l.Marshal(); err == nil {
			t.Errorf("%s is written: %x", name, data[:min(len(data), 100)])
		}
	}
}

// TestSmallestFormWins fixes the forms at the points where another becomes
// shorter.
func TestSmallestFormWins(t *testing.T) {
	t.Parallel()
	every := func(n, step uint64) (s Serials) {
		for i := range n {
			s = append(s, Range{1000 + i*step, 1000 + i*step})
		}
		return s
	}
	const list, span, bits = 5 + 8, 5 + 16, 5 + 8 + 4
	for name, c := range map[string]struct {
		serials Serials
		bytes   int
	}{
		"one":                            {Serials{{7, 7}}, list},
		"two neighbours":                 {Serials{{7, 8}}, bits + 1},
		"a long run":                     {Serials{{7, 7_000_000}}, span},
		"all":                            {Serials{{1, math.MaxUint64}}, span},
		"the last":                       {Serials{{math.MaxUint64, math.MaxUint64}}, list},
		"two far apart":                  {Serials{{7, 7}, {1 << 40, 1 << 40}}, list + 8},
		"a list for both ends of a run":  {Serials{{7, 7}, {1 << 30, 1 << 31}, {1 << 40, 1 << 40}}, list + 8 + span},
		"every third of a few":           {every(10, 3), bits + 4},
		"every third of many":            {every(3000, 3), bits + 9000/8},
		"as many as one bitmap holds":    {every(maxBitmapBits/2, 2), bits + maxBitmapBits/8},
		"one more than one bitmap holds": {every(maxBitmapBits/2+1, 2), bits + maxBitmapBits/8 + list},
	} {
		l := &List{Certificates: []Certificates{{Serials: c.serials}}}
		data := mustMarshal(t, l)
		if got := len(data) - 44 - 5 - 8; got != c.bytes {
			t.Errorf("%s: %d bytes, want %d", name, got, c.bytes)
		}
		if ok, out := valid(t, data); !ok {
			t.Errorf("%s: ssh-keygen refuses it: %s", name, out)
		}
		if diff := cmp.Diff(c.serials, mustParse(t, data).Certificates[0].Serials); diff != "" {
			t.Errorf("%s: read back: %s", name, diff)
		}
	}
}

// TestBitmapIsTheNumberThatItStandsFor compares with math/big.
func TestBitmapIsTheNumberThatItStandsFor(t *testing.T) {
	t.Parallel()
	s := Serials{{100, 100}, {103, 105}, {115, 115}}
	number := new(big.Int)
	for _, bit := range []int{0, 3, 4, 5, 15} {
		number.SetBit(number, bit, 1)
	}
	want := append([]byte{0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 3, 0}, number.Bytes()...)
	if got := bitmap(s); !bytes.Equal(got, want) {
		t.Errorf("bitmap is %x, want %x", got, want)
	}
}
