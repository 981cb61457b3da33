package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
)

const (
	// MaxBodyValues bounds the values in a body, on all levels: each takes many times the
	// memory that its text does.
	MaxBodyValues = 20_000
	// MaxBodyDepth bounds how deep lists and objects of a body stand in each other.
	MaxBodyDepth = 64
	// valueMemory is the most that decoding a value takes beside its text, in bytes: an
	// entry of a map with its key, which grows, or the decoder for one short string.
	valueMemory = 256
)

// BodyMemory is the most that a body of so many bytes takes of [Config.BodyMemory].
func BodyMemory(limit int64) int64 {
	const copies = 3 // the most that anybody gives ReadJSON
	return (1+copies)*limit + MaxBodyValues*valueMemory + bodyChunk
}

// ReadJSON reads a body of JSON as [ReadBody] does. Before anything is decoded it refuses
// too many values, and takes the memory that they will have: the text as often as decoding copies it, and
// so much for each value. It does not say that the body is JSON.
func ReadJSON(w http.ResponseWriter, r *http.Request, limit, copies int64) ([]byte, error) {
	text, err := ReadBody(w, r, limit)
	if err != nil {
		return nil, err
	}
	values, depth := shapeOf(text)
	switch {
	case values > MaxBodyValues:
		return nil, &requestError{err: errBodyMalformed, detail: fmt.Sprintf("The body has more than %d values, on all levels.", MaxBodyValues)}
	case depth > MaxBodyDepth:
		return nil, &requestError{err: errBodyMalformed, detail: fmt.Sprintf("The body has lists or objects more than %d levels deep.", MaxBodyDepth)}
	}
	return text, exchangeFrom(r.Context()).holdBody((1+copies)*int64(len(text)) + int64(values)*valueMemory)
}

// shapeOf is at least the number of values in a JSON text, and the depth of its lists and
// objects. Each value but the first of a list or an object comes after a comma, and that one
// after a bracket.
func shapeOf(text []byte) (values, depth int) {
	values, level := 1, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i += stringEnd(text[i:]) - 1
		case ',':
			values++
		case '[', '{':
			values++
			level++
			depth = max(depth, level)
		case ']', '}':
			level--
		}
	}
	return values, depth
}

// stringEnd is how long the string is that text begins with, its quotes included.
func stringEnd(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// valueEnd is how long the value is that a valid JSON text begins with.
func valueEnd(text []byte) int {
	switch text[0] {
	case '"':
		return stringEnd(text)
	case '[', '{':
		level := 0
		for i := 0; i < len(text); i++ {
			switch text[i] {
			case '"':
				i += stringEnd(text[i:]) - 1
			case '[', '{':
				level++
			case ']', '}':
				if level--; level == 0 {
					return i + 1
				}
			}
		}
	}
	if end := bytes.IndexAny(text, ",]} \t\r\n"); end >= 0 {
		return end
	}
	return len(text)
}

// membersOf yields the values of a valid JSON list or object as they stand in the text, with their keys if
// it is an object. Nothing is copied.
func membersOf(raw []byte) iter.Seq2[json.RawMessage, json.RawMessage] {
	return func(yield func(key, value json.RawMessage) bool) {
		object := raw[0] == '{'
		rest := bytes.TrimLeft(raw[1:], space)
		for rest[0] != ']' && rest[0] != '}' {
			var key json.RawMessage
			if object {
				n := stringEnd(rest)
				key, rest = rest[:n], bytes.TrimLeft(rest[n:], space)
				rest = bytes.TrimLeft(rest[1:], space) // the colon
			}
			n := valueEnd(rest)
			if !yield(key, rest[:n:n]) {
				return
			}
			if rest = bytes.TrimLeft(rest[n:], space); rest[0] == ',' {
				rest = bytes.TrimLeft(rest[1:], space)
			}
		}
	}
}

// space is what JSON allows between its words (RFC 8259 §2).
const space = " \t\r\n"

// unquote is the text of a valid JSON string.
func unquote(raw json.RawMessage) (string, error) {
	if !bytes.ContainsRune(raw, '\\') {
		return string(raw[1 : len(raw)-1]), nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}
