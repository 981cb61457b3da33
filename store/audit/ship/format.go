package ship

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"sallyport/store/audit"
)

// format writes events as syslog messages: RFC 5424, with the JSON record as MSG.
type format struct {
	facility, process int
	host              string
	most              int
}

// sdID names our structured data. 32473 is the enterprise number that RFC 5612 has for
// those without one of their own.
const sdID = "sallyport@32473"

// known are the members of a record that a receiver may want without reading it.
type known struct {
	Action  string `json:"event.action"`
	Outcome string `json:"event.outcome"`
	Trace   string `json:"trace.id"`
}

func knownOf(line audit.Line) (k known) {
	_ = json.Unmarshal(line.Text, &k) // the log wrote it, and the reader has checked it
	return k
}

// appendFrames appends an event as one message or more, each behind its length
// (RFC 5425 section 4.3). The parts of one have the same sequence and hash.
func (f format) appendFrames(b []byte, line audit.Line) []byte {
	k := knownOf(line)
	text := line.Text
	whole := f.message(line, k, 1, 1, text)
	if len(whole) <= f.most {
		return appendFrame(b, whole)
	}
	room := f.most - (len(whole) - len(text)) - len("999999")*2 // more digits in part and parts
	var parts [][]byte
	for len(text) > 0 {
		n := cut(text, room)
		parts = append(parts, text[:n])
		text = text[n:]
	}
	for i, part := range parts {
		b = appendFrame(b, f.message(line, k, i+1, len(parts), part))
	}
	return b
}

// cut is the largest number of whole characters that fits.
func cut(text []byte, room int) int {
	if len(text) <= room {
		return len(text)
	}
	for n := room; n > room-utf8.UTFMax; n-- {
		if utf8.RuneStart(text[n]) {
			return n
		}
	}
	return room
}

func appendFrame(b, message []byte) []byte {
	b = strconv.AppendInt(b, int64(len(message)), 10)
	b = append(b, ' ')
	return append(b, message...)
}

// Severities of RFC 5424 section 6.2.1.
const (
	warning = 4
	notice  = 5
)

func (f format) message(line audit.Line, k known, part, parts int, text []byte) []byte {
	severity := notice
	if k.Outcome == string(audit.Failure) {
		severity = warning
	}
	var b bytes.Buffer
	b.WriteString("<" + strconv.Itoa(f.facility*8+severity) + ">1 ")
	b.WriteString(line.Time.UTC().Format("2006-01-02T15:04:05.000000Z"))
	b.WriteString(" " + header(f.host, 255) + " sallyport " + strconv.Itoa(f.process) + " " + header(k.Action, 32))
	b.WriteString(" [" + sdID + ` sequence="` + strconv.FormatUint(line.Sequence, 10) + `" hash="` + line.Hash + `"`)
	if parts > 1 {
		b.WriteString(` part="` + strconv.Itoa(part) + "/" + strconv.Itoa(parts) + `"`)
	}
	b.WriteString("] ")
	b.Write(text)
	return b.Bytes()
}

// header makes a field of a message's head: printable ASCII, bounded, "-" for nothing.
func header(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}
