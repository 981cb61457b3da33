package krl

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"
)

// A drawn is a random list, and with it serials and key IDs that lie near it.
type drawn struct {
	list    *List
	serials []uint64
	ids     []string
}

// ranges draws clusters of serials, all over the numbers: near 0, near the last,
// dense and thin, so that every form is written.
func ranges() *rapid.Generator[[]Range] {
	return rapid.Custom(func(t *rapid.T) (all []Range) {
		bases := rapid.SampledFrom([]uint64{1, 1000, 1 << 33, 1<<63 - 20, math.MaxUint64 - 40_000})
		for range rapid.IntRange(0, 4).Draw(t, "clusters") {
			next := bases.Draw(t, "base") + rapid.Uint64Range(0, 300).Draw(t, "offset")
			widest := rapid.SampledFrom([]uint64{1, 2, 9, 200, 3000}).Draw(t, "gap")
			for range rapid.IntRange(1, 12).Draw(t, "runs") {
				last := next + rapid.SampledFrom([]uint64{0, 0, 0, 1, 2, 30}).Draw(t, "run")
				all = append(all, Range{next, last})
				next = last + 1 + rapid.Uint64Range(1, widest).Draw(t, "step")
			}
		}
		return all
	})
}

func draw(t *rapid.T, tb testing.TB) drawn {
	number := rapid.ByteRange(1, 6)
	d := drawn{list: &List{Version: rapid.Uint64().Draw(t, "version"), Generated: time.Unix(1700000000, 0).UTC()}}
	for ca := range byte(3) { // 0 is any
		c := Certificates{Serials: join(ranges().Draw(t, "serials"))}
		c.KeyIDs = rapid.SliceOfNDistinct(rapid.StringMatching(`v1:[a-c]`), 0, 2, rapid.ID).Draw(t, "key IDs")
		if ca > 0 {
			c.CA = keyOf(tb, ca)
		}
		if len(c.Serials)+len(c.KeyIDs) > 0 {
			d.list.Certificates = append(d.list.Certificates, c)
		}
		for i, r := range c.Serials {
			if i%5 == 0 {
				d.serials = append(d.serials, r.First-1, r.First, r.Last, r.Last+1)
			}
		}
	}
	for _, n := range rapid.SliceOfNDistinct(number, 0, 2, rapid.ID).Draw(t, "keys") {
		d.list.Keys = append(d.list.Keys, keyOf(tb, n))
	}
	for _, n := range rapid.SliceOfNDistinct(number, 0, 2, rapid.ID).Draw(t, "hashes") {
		d.list.SHA256 = append(d.list.SHA256, sha256.Sum256(keyOf(tb, n).Marshal()))
	}
	d.serials = append(d.serials, 0, 1, 4711, math.MaxUint64)
	d.ids = []string{"v1:a", "v1:b", "v1:d", ""}
	return d
}

// questions are keys and certificates about which the list is asked.
func (d drawn) questions(t *rapid.T, tb testing.TB) (keys []ssh.PublicKey) {
	number := rapid.ByteRange(1, 6)
	for range 8 {
		keys = append(keys, certificate(tb, number.Draw(t, "key"), number.Draw(t, "ca"),
			rapid.SampledFrom(d.serials).Draw(t, "serial"), rapid.SampledFrom(d.ids).Draw(t, "id")))
	}
	return append(keys, keyOf(tb, number.Draw(t, "plain")))
}

func answers(l *List, keys []ssh.PublicKey) (revoked []bool) {
	for _, k := range keys {
		revoked = append(revoked, l.Revokes(k))
	}
	return revoked
}

// TestListsMeanToSSHKeygenWhatTheyMeanHere: random lists, written here, are asked
// by ssh-keygen -Q.
func TestListsMeanToSSHKeygenWhatTheyMeanHere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		d := draw(rt, t)
		data := mustMarshal(t, d.list)
		keys := d.questions(rt, t)
		want := answers(d.list, keys)
		if diff := cmp.Diff(want, judge(t, dir, data, keys)); diff != "" {
			rt.Fatalf("ssh-keygen sees it differently: %s\n%+v", diff, d.list)
		}
		back := mustParse(t, data)
		if diff := cmp.Diff(want, answers(back, keys)); diff != "" {
			rt.Fatalf("read back it says something else: %s", diff)
		}
		if again := mustMarshal(t, back); string(again) != string(data) {
			rt.Fatal("read back and written again it has other bytes")
		}
	})
}

// TestListsOfSSHKeygenAreRead: random lists, written by ssh-keygen -k, mean here
// what they were made from, and are never longer when written here.
func TestListsOfSSHKeygenAreRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		d := draw(rt, t)
		data := keygenWrites(rt, t, dir, d.list)
		got := mustParse(t, data)
		if diff := cmp.Diff(normal(d.list), normal(got), cmpopts.EquateEmpty()); diff != "" {
			rt.Fatalf("read differently: %s", diff)
		}
		if got.Version != d.list.Version || time.Since(got.Generated).Abs() > time.Hour {
			rt.Errorf("version %d, generated %s", got.Version, got.Generated)
		}
		keys := d.questions(rt, t)
		if diff := cmp.Diff(answers(d.list, keys), answers(got, keys)); diff != "" {
			rt.Fatalf("means something else: %s", diff)
		}
		if ours := mustMarshal(t, d.list); len(ours) > len(data) {
			rt.Errorf("has %d bytes here, %d of ssh-keygen", len(ours), len(data))
		}
	})
}

// TestDamageIsFoundAsSSHKeygenFindsIt: one changed, lost or added byte.
func TestDamageIsFoundAsSSHKeygenFindsIt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		data := mustMarshal(t, draw(rt, t).list)
		at := rapid.IntRange(0, len(data)-1).Draw(rt, "at")
		switch rapid.IntRange(0, 2).Draw(rt, "damage") {
		case 0:
			data[at] ^= rapid.ByteRange(1, 255).Draw(rt, "change")
		case 1:
			data = append(data[:at:at], data[at+1:]...)
		case 2:
			data = append(append(data[:at:at], 0), data[at:]...)
		}
		_, err := Parse(data)
		if errors.Is(err, errSignature) || errors.Is(err, errCAKey) {
			rt.Skip("OpenSSH's idea of a key, or of a signature, is its own")
		}
		if ok, out := valid(t, data); ok != (err == nil) {
			rt.Fatalf("ssh-keygen takes it: %t (%s); here: %v\n%x", ok, out, err, data)
		}
	})
}

// normal is a form of a list in which equal lists are equal.
func normal(l *List) map[string][]string {
	all := make(map[string][]string)
	for _, c := range l.Certificates {
		ca := "any"
		if c.CA != nil {
			ca = ssh.FingerprintSHA256(c.CA)
		}
		all[ca] = append(all[ca], fmt.Sprint(c.Serials))
		all[ca+" ids"] = texts(c.KeyIDs, func(id string) []byte { return []byte(id) })
	}
	all["keys"] = texts(l.Keys, ssh.PublicKey.Marshal)
	all["sha256"] = texts(l.SHA256, func(h [32]byte) []byte { return h[:] })
	return all
}

func texts[T any](items []T, form func(T) []byte) (list []string) {
	for _, b := range blobs(items, form) {
		list = append(list, string(b))
	}
	return list
}

// keygenWrites has ssh-keygen write the list, one CA after the other. It can make
// a list of nothing only with a specification, even if that is empty.
func keygenWrites(rt *rapid.T, t *testing.T, dir string, l *List) []byte {
	path := filepath.Join(dir, "theirs.krl")
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	run := func(ca, spec string) {
		args := []string{"-k", "-f", path, "-z", fmt.Sprint(l.Version), "-s", ca}
		if _, err := os.Stat(path); err == nil {
			args = append(args, "-u")
		}
		if out, code := keygen(t, append(args, write(t, dir, "spec", []byte(spec)))...); code != 0 {
			rt.Fatalf("ssh-keygen -k: %s\n%s", out, spec)
		}
	}
	var keys strings.Builder
	for _, k := range l.Keys {
		fmt.Fprintf(&keys, "key: %s", ssh.MarshalAuthorizedKey(k))
	}
	for n := range byte(7) {
		for _, h := range l.SHA256 {
			if k := keyOf(t, n); h == sha256.Sum256(k.Marshal()) {
				fmt.Fprintf(&keys, "hash: %s\n", ssh.FingerprintSHA256(k))
			}
		}
	}
	run("none", keys.String())
	for _, c := range l.Certificates {
		ca, spec := "none", strings.Builder{}
		if c.CA != nil {
			ca = write(t, dir, "ca.pub", ssh.MarshalAuthorizedKey(c.CA))
		}
		for _, r := range c.Serials {
			if r.First == r.Last {
				fmt.Fprintf(&spec, "serial: %d\n", r.First)
				continue
			}
			fmt.Fprintf(&spec, "serial: %d-%d\n", r.First, r.Last)
		}
		for _, id := range c.KeyIDs {
			fmt.Fprintf(&spec, "id: %s\n", id)
		}
		run(ca, spec.String())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// certificateSection is a list with one section of certificates of any CA.
func certificateSection(kind byte, body ...byte) []byte {
	section := appendString([]byte{0, 0, 0, 0, 0, 0, 0, 0, kind}, body)
	list, _ := (&List{}).Marshal()
	return appendString(append(list, sectionCertificates), section)
}

func number64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// ruleCases are the rules whose breach makes sshd refuse every login, each with a
// neighbour that is allowed.
func ruleCases(t testing.TB) map[string]struct {
	list  []byte
	valid bool
} {
	t.Helper()
	list, err := (&List{}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	section := func(kind byte, body []byte) []byte {
		return appendString(append(append([]byte{}, list...), kind), body)
	}
	bitmapOf := func(offset uint64, number []byte) []byte {
		return certificateSection(certSerialBitmap, appendString(number64(offset), number)...)
	}
	full := make([]byte, maxBitmapBits/8)
	full[0] = 0x80
	span := func(a, b uint64) []byte { return append(number64(a), number64(b)...) }
	withVersion := append([]byte{}, list...)
	withVersion[11] = 2
	return map[string]struct {
		list  []byte
		valid bool
	}{
		"nothing":                         {nil, false},
		"magic alone":                     {list[:8], false},
		"header cut":                      {list[:43], false},
		"header":                          {list, true},
		"format version 2":                {withVersion, false},
		"trailing byte":                   {append(append([]byte{}, list...), 0), false},
		"golden":                          {unhex(t, golden), true},
		"golden and a byte":               {append(unhex(t, golden), 1), false},
		"golden without its end":          {unhex(t, golden)[:124], false},
		"serial 0 in a list":              {certificateSection(certSerialList, number64(0)...), false},
		"serial 1 in a list":              {certificateSection(certSerialList, number64(1)...), true},
		"partial serial":                  {certificateSection(certSerialList, number64(1)[:7]...), false},
		"empty list of serials":           {certificateSection(certSerialList), true},
		"range from 0":                    {certificateSection(certSerialRange, span(0, 5)...), false},
		"range of everything":             {certificateSection(certSerialRange, span(1, math.MaxUint64)...), true},
		"reversed range":                  {certificateSection(certSerialRange, span(6, 5)...), false},
		"two ranges in one":               {certificateSection(certSerialRange, append(span(1, 2), span(4, 5)...)...), false},
		"half a range":                    {certificateSection(certSerialRange, number64(1)...), false},
		"bitmap, negative":                {bitmapOf(5, []byte{0x81}), false},
		"bitmap, leading zero":            {bitmapOf(5, []byte{0, 0x81}), true},
		"bitmap, not minimal":             {bitmapOf(5, []byte{0, 0, 0x01}), true},
		"bitmap of nothing":               {bitmapOf(5, nil), true},
		"bitmap, bit 0 at offset 0":       {bitmapOf(0, []byte{1}), false},
		"bitmap, bit 1 at offset 0":       {bitmapOf(0, []byte{2}), true},
		"bitmap, full":                    {bitmapOf(5, append([]byte{0}, full...)), true},
		"bitmap, a bit more than full":    {bitmapOf(5, append([]byte{1}, full...)), false},
		"bitmap, long with zeros":         {bitmapOf(5, append([]byte{0, 0}, full...)), false},
		"bitmap to the last serial":       {bitmapOf(math.MaxUint64-7, []byte{0, 0x80}), true},
		"bitmap beyond the last serial":   {bitmapOf(math.MaxUint64-7, []byte{1, 0}), false},
		"bitmap, then a byte":             {certificateSection(certSerialBitmap, append(appendString(number64(5), []byte{1}), 0)...), false},
		"key ID with NUL inside":          {certificateSection(certKeyIDs, appendString(nil, []byte("a\x00b"))...), false},
		"key ID with NUL at its end":      {certificateSection(certKeyIDs, appendString(nil, []byte("a\x00"))...), true},
		"empty key ID":                    {certificateSection(certKeyIDs, appendString(nil, nil)...), true},
		"no key IDs":                      {certificateSection(certKeyIDs), true},
		"extension of certificates":       {certificateSection(0x39, appendString(nil, []byte("x@y"))...), false},
		"certificates of unknown type":    {certificateSection(0x24, 0), false},
		"certificates without a body":     {section(sectionCertificates, nil), false},
		"certificates of nothing":         {section(sectionCertificates, make([]byte, 8)), true},
		"certificates, CA is no key":      {section(sectionCertificates, append(appendString(nil, []byte("key")), 0, 0, 0, 0)), false},
		"key":                             {section(sectionKeys, appendString(nil, keyOf(t, 1).Marshal())), true},
		"key of unknown type":             {section(sectionKeys, appendString(nil, []byte("\x00\x00\x00\x03new"))), true},
		"key cut":                         {section(sectionKeys, []byte{0, 0, 0, 9, 1}), false},
		"no keys":                         {section(sectionKeys, nil), true},
		"SHA-256 of 32 bytes":             {section(sectionSHA256, appendString(nil, make([]byte, 32))), true},
		"SHA-256 of 31 bytes":             {section(sectionSHA256, appendString(nil, make([]byte, 31))), false},
		"SHA-1 of 20 bytes":               {section(sectionSHA1, appendString(nil, make([]byte, 20))), true},
		"SHA-1 of 32 bytes":               {section(sectionSHA1, appendString(nil, make([]byte, 32))), false},
		"extension":                       {section(255, appendString(nil, []byte("x@y"))), false},
		"section of unknown type":         {section(77, nil), false},
		"section longer than the file":    {append(append([]byte{}, list...), 2, 0xff, 0xff, 0xff, 0xff), false},
		"section type without a length":   {append(append([]byte{}, list...), 1), false},
		"hash":                            {section(sectionSHA256, nil), true},
		"bitmap without a number":         {certificateSection(certSerialBitmap, number64(5)...), false},
		"number longer than its section":  {certificateSection(certSerialBitmap, append(number64(5), 0, 0, 1, 0, 1)...), false},
		"another file, such as a key":     {[]byte("ssh-ed25519 AAAA\n"), false},
		"reserved and comment are filled": {append(append(append([]byte{}, list[:36]...), 0, 0, 0, 1, 'r'), 0, 0, 0, 1, 'c'), true},
	}
}

func TestReaderAndSSHKeygenAgreeOnEveryRule(t *testing.T) {
	t.Parallel()
	for name, c := range ruleCases(t) {
		_, err := Parse(c.list)
		if (err == nil) != c.valid {
			t.Errorf("%s: is read: %t (%v)", name, !c.valid, err)
		}
		if ok, out := valid(t, c.list); ok != c.valid {
			t.Errorf("%s: ssh-keygen takes it: %t: %s", name, ok, out)
		}
	}
}

// TestSignedListIsRefused: OpenSSH versions differ about signatures.
func TestSignedListIsRefused(t *testing.T) {
	t.Parallel()
	list := append(unhex(t, emptyList), sectionSignature)
	list = appendString(appendString(list, keyOf(t, 1).Marshal()), []byte("signature"))
	if _, err := Parse(list); err == nil || !strings.Contains(err.Error(), errSignature.Error()) {
		t.Errorf("error is %v", err)
	}
}

func TestListBeyondTheLimitIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := Parse(append(unhex(t, emptyList), make([]byte, MaxBytes)...)); err == nil {
		t.Error("it is read")
	}
}
