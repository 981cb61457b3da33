package krl

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// A list of MaxBytes could hold 33 million ranges, which are gigabytes in memory.
func TestAListOfTooManyRangesIsRefused(t *testing.T) {
	t.Parallel()
	l := &List{Version: 1, Certificates: []Certificates{{Serials: make(Serials, maxRanges+1)}}}
	for i := range l.Certificates[0].Serials {
		n := uint64(2*i + 1)
		l.Certificates[0].Serials[i] = Range{n, n}
	}
	if _, err := l.Marshal(); err == nil || !strings.Contains(err.Error(), "ranges") {
		t.Errorf("written: %v", err)
	}
	var body []byte
	body = appendString(appendString(body, nil), nil)
	for first := uint64(1); len(body) < MaxBytes-8192; first += maxBitmapBits {
		bitmap := appendString(binary.BigEndian.AppendUint64(nil, first), bytes.Repeat([]byte{0x55}, maxBitmapBits/8))
		body = appendString(append(body, certSerialBitmap), bitmap)
	}
	data := appendSection(mustMarshal(t, &List{Version: 1}), sectionCertificates, body)
	if _, err := Parse(data); err == nil || !strings.Contains(err.Error(), "ranges") {
		t.Errorf("read: %v", err)
	}
	// What is below the bound is read back. Fewer suffice: to find the smallest encoding of
	// a million takes half a minute.
	l.Certificates[0].Serials = l.Certificates[0].Serials[:maxRanges/64]
	if got := mustParse(t, mustMarshal(t, l)).Certificates[0].Serials; len(got) != maxRanges/64 {
		t.Errorf("%d ranges are read back", len(got))
	}
}
