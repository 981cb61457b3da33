package importfirecrest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// A writer writes a TOML file.
type writer struct{ text strings.Builder }

func (w *writer) line(s string) {
	_, _ = w.text.WriteString(s + "\n") // never fails
}

// table begins a table, with a line between it and what stands before.
func (w *writer) table(header string) {
	if w.text.Len() > 0 {
		w.line("")
	}
	w.line(header)
}

func (w *writer) comment(format string, args ...any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		w.line(strings.TrimRight("# "+line, " "))
	}
}

// set writes a key, unless the value is the zero value of its type.
func (w *writer) set(key string, value any) {
	var text string
	switch v := value.(type) {
	case string:
		if v == "" {
			return
		}
		text = quoted(v)
	case []string:
		if len(v) == 0 {
			return
		}
		parts := make([]string, len(v))
		for i, each := range v {
			parts[i] = quoted(each)
		}
		text = "[" + strings.Join(parts, ", ") + "]"
	case time.Duration:
		if v == 0 {
			return
		}
		text = quoted(v.String())
	case int64:
		if v == 0 {
			return
		}
		text = fmt.Sprint(v)
	case bool:
		if !v {
			return
		}
		text = "true"
	}
	w.line(key + " = " + text)
}

// quoted is a basic string of TOML. Those of JSON are a part of them, but for DEL.
func quoted(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // strings always encode
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}
