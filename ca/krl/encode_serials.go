package krl

import (
	"encoding/binary"
)

// maxBitmapBits is what sshd takes in one bitmap (sshbuf.h, SSHBUF_MAX_BIGNUM).
const maxBitmapBits = 16384

// The bytes of each form, with the type and length of its subsection.
const (
	headerBytes = 1 + 4
	serialBytes = 8                              // one more in the list
	rangeBytes  = headerBytes + 2*8              // of any length
	bitmapBytes = headerBytes + 8 + 4            // and bitmapSize
	listedMost  = (rangeBytes - 1) / serialBytes // a longer run is shorter as a range
)

// bitmapSize is how many bytes the number of a bitmap over span serials has, of
// which the last is revoked: a leading zero keeps it from being negative.
func bitmapSize(span uint64) int { return int(span/8) + 1 } //nolint:gosec // at most maxBitmapBits

// A piece says in which form some neighbouring ranges are written.
type piece struct {
	from, to int // ranges [from:to)
	form     byte
}

// appendSerials writes s in as few bytes as possible. There is one list for all
// that goes into it, whose header counts once: so the best way with a list is
// compared with the best way without.
func appendSerials(w []byte, s Serials) []byte {
	with, costWith := plan(s, true)
	without, costWithout := plan(s, false)
	if costWithout <= costWith+headerBytes {
		with = without
	}
	var list []byte
	for _, p := range with {
		first, last := s[p.from].First, s[p.to-1].Last
		switch p.form {
		case certSerialList:
			for n := first; ; n++ {
				list = binary.BigEndian.AppendUint64(list, n)
				if n == last {
					break
				}
			}
		case certSerialRange:
			body := binary.BigEndian.AppendUint64(nil, first)
			w = appendSection(w, certSerialRange, binary.BigEndian.AppendUint64(body, last))
		case certSerialBitmap:
			w = appendSection(w, certSerialBitmap, bitmap(s[p.from:p.to]))
		}
	}
	return appendSection(w, certSerialList, list)
}

// plan finds the cheapest pieces for s: best[i] is the least that its first i
// ranges cost, last[i] the piece with which that way ends.
func plan(s Serials, listAllowed bool) (pieces []piece, cost int) {
	best, last := make([]int, len(s)+1), make([]piece, len(s)+1)
	for i := 1; i <= len(s); i++ {
		r := s[i-1]
		best[i], last[i] = best[i-1]+rangeBytes, piece{i - 1, i, certSerialRange}
		if n := r.Last - r.First; listAllowed && n < listedMost {
			if c := best[i-1] + int(n+1)*serialBytes; c < best[i] {
				best[i], last[i] = c, piece{i - 1, i, certSerialList}
			}
		}
		for j := i - 1; j >= 0 && r.Last-s[j].First < maxBitmapBits; j-- {
			if c := best[j] + bitmapBytes + bitmapSize(r.Last-s[j].First+1); c < best[i] {
				best[i], last[i] = c, piece{j, i, certSerialBitmap}
			}
		}
	}
	for i := len(s); i > 0; i = last[i].from {
		pieces = append(pieces, last[i])
	}
	return pieces, best[len(s)]
}

// bitmap returns the body of a bitmap: an offset, and a number whose bit n stands
// for the serial offset+n.
func bitmap(s Serials) []byte {
	offset := s[0].First
	number := make([]byte, bitmapSize(s[len(s)-1].Last-offset+1))
	for _, r := range s {
		for bit := r.First - offset; bit <= r.Last-offset; bit++ {
			number[len(number)-1-int(bit/8)] |= 1 << (bit % 8) //nolint:gosec // at most maxBitmapBits
		}
	}
	return appendString(binary.BigEndian.AppendUint64(nil, offset), number)
}
