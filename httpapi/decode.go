package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// readObject reads the body as one JSON object of at most limit bytes. It checks
// what encoding/json lets pass: keys are case-sensitive and unique, text is valid
// UTF-8, nothing follows the object.
func (a *API) readObject(w http.ResponseWriter, r *http.Request, limit int64) (*object, error) {
	if err := checkJSON(r.Header); err != nil {
		return nil, err
	}
	return a.readBody(w, r, limit)
}

// readBody is readObject for clients that mislabel what they send.
func (a *API) readBody(w http.ResponseWriter, r *http.Request, limit int64) (*object, error) {
	body, err := ReadBody(w, r, limit)
	if err != nil {
		return nil, err
	}
	return parseObject(body)
}

func tooLarge(limit int64) error {
	return &requestError{err: errBodyTooLarge, detail: fmt.Sprintf("The body exceeds %d bytes.", limit)}
}

func checkJSON(h http.Header) error {
	media, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset := params["charset"]
	if err != nil || media != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") || h.Get("Content-Encoding") != "" {
		return &requestError{err: errMediaType, field: "Content-Type", allowed: []string{"application/json"}}
	}
	return nil
}

// An object is a JSON object whose fields are taken one by one, each with its
// type; the first mistake is kept.
type object struct {
	fields map[string]json.RawMessage
	known  []string
	err    error
}

func parseObject(data []byte) (*object, error) {
	if !utf8.Valid(data) {
		return nil, &requestError{err: errBodyMalformed, detail: "The body is not valid UTF-8."}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, malformed(data, err)
	}
	o := &object{fields: make(map[string]json.RawMessage)}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, malformed(data, err)
		}
		name, _ := key.(string) // the key of an object is a string
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, malformed(data, err)
		}
		if _, twice := o.fields[name]; twice {
			return nil, &requestError{err: errBodyMalformed, field: shown(name), detail: "The key stands in the object twice."}
		}
		o.fields[name] = raw
	}
	if _, err := dec.Token(); err != nil {
		return nil, malformed(data, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &requestError{err: errBodyMalformed, detail: "Something follows the JSON object."}
	}
	return o, nil
}

// malformed says where the body stops being an object; the decoder's text is for the log
// only.
func malformed(data []byte, err error) error {
	e := &requestError{err: errors.Join(errBodyMalformed, err)}
	// A Decoder's own offsets are not those of the mistake.
	syntax, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(data, new(json.RawMessage)))
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		e.detail = "The body is empty; it must be a JSON object."
	case err == nil:
		e.detail = "The body is JSON, but no object."
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.detail = fmt.Sprintf("The body ends within the JSON object, after %d bytes.", len(data))
	case ok:
		e.detail = fmt.Sprintf("The body is no JSON from byte %d on.", syntax.Offset)
	}
	return e
}

// shown is a field name of the client's as it may stand in an answer.
func shown(name string) string {
	if name == "" {
		return `""`
	}
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "") + "…"
	}
	return name
}

// refuse keeps the first mistake.
func (o *object) refuse(field, detail string, allowed ...string) {
	if o.err == nil {
		o.err = &requestError{err: errFieldInvalid, field: shown(field), detail: detail, allowed: allowed}
	}
}

func (o *object) has(field string) bool {
	_, ok := o.fields[field]
	return ok
}

// take returns the raw value of a known field, or nil when it is absent.
func (o *object) take(field string) json.RawMessage {
	o.known = append(o.known, field)
	return o.fields[field]
}

// finish refuses fields that nobody took, and returns the first mistake. An unknown
// field comes before any other: often it is why something else is missing.
func (o *object) finish() error {
	for _, name := range slices.Sorted(maps.Keys(o.fields)) {
		if !slices.Contains(o.known, name) {
			o.err = nil
			o.refuse(name, "There is no such field.", o.known...)
			break
		}
	}
	return o.err
}

// text takes a string; absent is "".
func (o *object) text(field string) string {
	raw := o.take(field)
	if raw == nil {
		return ""
	}
	return o.asText(field, raw)
}

func (o *object) asText(field string, raw json.RawMessage) string {
	var s string
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		o.refuse(field, "The field must be a string.")
		return ""
	}
	if loneSurrogate(raw) {
		o.refuse(field, "The string has half of a surrogate pair.")
	}
	return s
}

// texts takes a list of strings; absent is nil.
func (o *object) texts(field string) []string {
	raw := o.take(field)
	if raw == nil {
		return nil
	}
	var items []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
		o.refuse(field, "The field must be a list of strings.")
		return nil
	}
	list := make([]string, len(items))
	for i, item := range items {
		list[i] = o.asText(field+"["+strconv.Itoa(i)+"]", item)
	}
	return list
}

// textMap takes an object of strings; absent is nil.
func (o *object) textMap(field string) map[string]string {
	raw := o.take(field)
	if raw == nil {
		return nil
	}
	inner, err := parseObject(raw)
	if err != nil {
		o.refuse(field, "The field must be an object of strings that names no key twice.")
		return nil
	}
	values := make(map[string]string, len(inner.fields))
	for _, name := range slices.Sorted(maps.Keys(inner.fields)) {
		values[name] = o.asText(field+"."+name, inner.fields[name])
	}
	return values
}

// count takes a whole number from 1; absent is 0.
func (o *object) count(field string) int64 {
	raw := o.take(field)
	if raw == nil {
		return 0
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 1 {
		o.refuse(field, "The field must be a whole number from 1.")
		return 0
	}
	return n
}

// duration takes Go's notation ("1h30m") or a number of seconds; absent is 0. It
// must be positive: a zero that means "the default" would hide mistakes.
func (o *object) duration(field string) time.Duration {
	raw := o.take(field)
	if raw == nil {
		return 0
	}
	var d time.Duration
	var err error
	if raw[0] == '"' {
		d, err = time.ParseDuration(o.asText(field, raw))
	} else {
		var seconds float64
		err = json.Unmarshal(raw, &seconds)
		if seconds < 0 || seconds > 1e9 || raw[0] == 'n' { // null leaves seconds alone
			seconds = 0
		}
		d = time.Duration(seconds * float64(time.Second))
	}
	if err != nil || d <= 0 {
		o.refuse(field, `The field must be a positive time: a string such as "90s" or "5m", or a number of seconds.`)
		return 0
	}
	return d
}

// loneSurrogate finds an escape such as \ud800 without its other half, which
// encoding/json would replace: the command would not be what the client wrote.
func loneSurrogate(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++ // the escaped character
		if raw[i] != 'u' {
			continue
		}
		switch r := hexRune(raw[i+1:]); {
		case 0xDC00 <= r && r <= 0xDFFF:
			return true
		case 0xD800 <= r && r <= 0xDBFF:
			rest := raw[i+5:]
			if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
				return true
			}
			if low := hexRune(rest[2:]); low < 0xDC00 || low > 0xDFFF {
				return true
			}
			i += 6
		}
		i += 4
	}
	return false
}

// hexRune reads the four digits of a \u escape in JSON that was parsed before.
func hexRune(digits []byte) rune {
	n, err := strconv.ParseUint(string(digits[:4]), 16, 16)
	if err != nil {
		return utf8.RuneError
	}
	return rune(n)
}

// flag takes true or false; absent is false.
func (o *object) flag(field string) bool {
	switch raw := o.take(field); string(raw) {
	case "", "false":
		return false
	case "true":
		return true
	}
	o.refuse(field, "The field must be true or false.")
	return false
}
