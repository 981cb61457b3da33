package firecrest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// fields are the inputs of a call from one place. They are taken one by one, each
// with its type, as leniently as FirecREST takes them: unknown ones are ignored, an
// empty or null one counts as absent, and a key of a body may be written in
// camelCase or snake_case. All mistakes are kept, up to a number.
type fields struct {
	location string // "query" or "body"
	prefix   string // of the names of an object inside the body
	get      func(name string) (any, bool)
	mistakes *[]fieldError
}

const (
	// maxMistakes bounds those that are kept: each is repeated in the answer.
	maxMistakes = 32
	// maxShownName bounds the name of a field in an answer, in bytes.
	maxShownName = 64
)

// parseBody takes a JSON object.
func parseBody(text []byte) (*fields, error) {
	if !bytesOfPython(text) {
		return nil, errSurrogate
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil || object == nil || !utf8.Valid(text) {
		return nil, errBadJSON
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errBadJSON
	}
	return &fields{location: "body", get: lookup(object)}, nil
}

// lookup finds a key in either spelling.
func lookup(object map[string]any) func(string) (any, bool) {
	return func(name string) (any, bool) {
		if v, ok := object[name]; ok {
			return v, true
		}
		v, ok := object[snake(name)]
		return v, ok
	}
}

// snake turns "workingDirectory" into "working_directory".
func snake(name string) string {
	var b strings.Builder
	for _, c := range name {
		if unicode.IsUpper(c) {
			b.WriteByte('_')
			c = unicode.ToLower(c)
		}
		b.WriteRune(c)
	}
	return b.String()
}

// refuse keeps a mistake, unless there are many. The message must not need the value to
// be understood.
func (f *fields) refuse(name, format string, args ...any) {
	if f.mistakes == nil {
		f.mistakes = new([]fieldError)
	}
	if len(*f.mistakes) >= maxMistakes {
		return
	}
	if len(name) > maxShownName {
		name = strings.ToValidUTF8(name[:maxShownName], "") + "…"
	}
	*f.mistakes = append(*f.mistakes, fieldError{f.location, f.prefix + name, fmt.Sprintf(format, args...)})
}

// finish returns all mistakes as one failure.
func (f *fields) finish() error {
	if f.mistakes == nil || len(*f.mistakes) == 0 {
		return nil
	}
	list := make([]string, 0, len(*f.mistakes))
	for _, m := range *f.mistakes {
		list = append(list, m.Location+" "+m.Name+": "+m.Message)
	}
	return &failure{
		status: http.StatusBadRequest, kind: "validation", code: "field_invalid",
		message: strings.Join(list, "; "), fields: *f.mistakes,
	}
}

// take returns the first of names that is set.
func (f *fields) take(names ...string) (any, bool) {
	for _, name := range names {
		if v, ok := f.get(name); ok && v != nil && v != "" {
			return v, true
		}
	}
	return nil, false
}

// text takes a string under the first of its names; absent is "".
func (f *fields) text(names ...string) string {
	v, ok := f.take(names...)
	if !ok {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		f.refuse(names[0], "Input should be a valid string")
	}
	if strings.ContainsRune(s, 0) {
		f.refuse(names[0], "Input should not hold a NUL character")
	}
	return s
}

// required is text that must be there.
func (f *fields) required(names ...string) string {
	if _, ok := f.take(names...); !ok {
		f.refuse(names[0], "Field required")
		return ""
	}
	return f.text(names...)
}

// lax are the words for booleans that FirecREST takes, in any case.
var lax = map[string]bool{
	"true": true, "1": true, "yes": true, "on": true, "t": true, "y": true,
	"false": false, "0": false, "no": false, "off": false, "f": false, "n": false,
}

// flag takes a boolean.
func (f *fields) flag(name string, absent bool) bool {
	v, ok := f.take(name)
	if !ok {
		return absent
	}
	if b, ok := v.(bool); ok {
		return b
	}
	b, ok := lax[strings.ToLower(fmt.Sprint(v))]
	if !ok {
		f.refuse(name, "Input should be a valid boolean, unable to interpret input")
	}
	return b
}

// whole takes a whole number.
func (f *fields) whole(name string, absent int64) int64 {
	v, ok := f.take(name)
	if !ok {
		return absent
	}
	n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64)
	if err != nil {
		f.refuse(name, "Input should be a valid integer, unable to parse string as an integer")
	}
	return n
}

// oneOf takes a string from a list.
func (f *fields) oneOf(name, absent string, allowed ...string) string {
	s := f.text(name)
	if s == "" {
		return absent
	}
	if slices.Contains(allowed, s) {
		return s
	}
	f.refuse(name, "Input should be one of '%s'", strings.Join(allowed, "', '"))
	return absent
}

// object takes an object; its mistakes are kept with the rest.
func (f *fields) object(name string) *fields {
	if f.mistakes == nil {
		f.mistakes = new([]fieldError)
	}
	inner := &fields{location: f.location, prefix: f.prefix + name + ".", mistakes: f.mistakes}
	v, ok := f.take(name)
	object, isObject := v.(map[string]any)
	switch {
	case !ok:
		f.refuse(name, "Field required")
	case !isObject:
		f.refuse(name, "Input should be a valid object")
	}
	inner.get = lookup(object)
	return inner
}

// texts takes an object of strings under the first of its names; absent is nil.
func (f *fields) texts(names ...string) map[string]string {
	v, ok := f.take(names...)
	if !ok {
		return nil
	}
	object, ok := v.(map[string]any)
	if !ok {
		f.refuse(names[0], "Input should be a valid dictionary")
		return nil
	}
	texts := make(map[string]string, len(object))
	for key, v := range object {
		s, ok := v.(string)
		if !ok {
			f.refuse(names[0]+"."+key, "Input should be a valid string")
		}
		texts[key] = s
	}
	return texts
}
