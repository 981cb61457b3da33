package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
	const copies = 2 // the texts of strings, and standard input in base64
	body, err := ReadJSON(w, r, limit, copies)
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
// type; the first mistake is kept. What the fields have is still the body's text.
type object struct {
	fields map[string]json.RawMessage
	known  []string
	err    error
}

func parseObject(data []byte) (*object, error) {
	if !utf8.Valid(data) {
		return nil, &requestError{err: errBodyMalformed, detail: "The body is not valid UTF-8."}
	}
	data = bytes.Trim(data, space)
	if !json.Valid(data) || data[0] != '{' {
		return nil, malformed(data)
	}
	o := &object{fields: make(map[string]json.RawMessage)}
	for key, value := range membersOf(data) {
		name, err := unquote(key)
		if err != nil {
			return nil, &requestError{err: errBodyMalformed}
		}
		if _, twice := o.fields[name]; twice {
			return nil, &requestError{err: errBodyMalformed, field: shown(name), detail: "The key stands in the object twice."}
		}
		o.fields[name] = value
	}
	return o, nil
}

// malformed says where the body stops being an object; the decoder's text is for the log
// only.
func malformed(data []byte) error {
	// It looks for syntax alone, and copies nothing.
	err := json.Unmarshal(data, new(json.RawMessage))
	e := &requestError{err: errBodyMalformed}
	if err != nil {
		e.err = errors.Join(errBodyMalformed, err)
	}
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	switch {
	case len(data) == 0:
		e.detail = "The body is empty; it must be a JSON object."
	case err == nil || data[0] != '{':
		e.detail = "The body is JSON, but no object."
	case ok && syntax.Offset < int64(len(data)) && json.Valid(data[:syntax.Offset-1]):
		e.detail = "Something follows the JSON object."
	case ok && syntax.Offset >= int64(len(data)):
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
	s, complaint := asText(raw)
	if complaint != "" {
		o.refuse(field, complaint)
	}
	return s
}

// asText is a string, or what is wrong with it.
func asText(raw json.RawMessage) (s, complaint string) {
	if raw[0] != '"' {
		return "", "The field must be a string."
	}
	s, err := unquote(raw)
	switch {
	case err != nil:
		return "", "The field must be a string."
	case loneSurrogate(raw):
		return s, "The string has half of a surrogate pair."
	}
	return s, ""
}

// texts takes a list of strings; absent is nil.
func (o *object) texts(field string) []string {
	raw := o.take(field)
	if raw == nil {
		return nil
	}
	if raw[0] != '[' {
		o.refuse(field, "The field must be a list of strings.")
		return nil
	}
	list := []string{}
	for _, item := range membersOf(raw) {
		s, complaint := asText(item)
		if complaint != "" {
			o.refuse(field+"["+strconv.Itoa(len(list))+"]", complaint)
		}
		list = append(list, s)
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
	if err != nil { // it names a key twice, or is no object
		o.refuse(field, "The field must be an object of strings that names no key twice.")
		return nil
	}
	values := make(map[string]string, len(inner.fields))
	for _, name := range slices.Sorted(maps.Keys(inner.fields)) {
		s, complaint := asText(inner.fields[name])
		if complaint != "" {
			o.refuse(field+"."+name, complaint)
		}
		values[name] = s
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
