package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// maxConfigBytes bounds what is read: a file of this size is no configuration.
const maxConfigBytes = 1 << 20

// A mistake is one thing wrong in a configuration file.
type mistake struct {
	line int // 0: not in the file (a missing key, an environment variable)
	key  string
	text string
}

// A configError lists every mistake of a file at once.
type configError struct {
	path     string
	mistakes []mistake
}

func (e *configError) Error() string {
	lines := make([]string, 0, len(e.mistakes))
	for _, m := range e.mistakes {
		lines = append(lines, m.in(e.path))
	}
	return strings.Join(lines, "\n")
}

func (m mistake) in(path string) string {
	if m.line > 0 {
		path += ":" + strconv.Itoa(m.line)
	}
	return path + ": " + m.key + ": " + m.text
}

// loadConfig reads the file at path, lets the environment (getenv) overrule it,
// fills in defaults, and checks all of it. It returns a *configError that lists
// every mistake.
func loadConfig(path string, getenv func(string) string) (File, error) {
	f, _, err := readConfig(path, getenv)
	return f, err
}

// readConfig is loadConfig for those who go on to check the files that it names, and who tell of warnings.
func readConfig(path string, getenv func(string) string) (File, *decoder, error) {
	text, err := readBounded(path, maxConfigBytes)
	if err != nil {
		return File{}, nil, fmt.Errorf("configuration: %w; give --config or SALLYPORT_CONFIG, or make one with 'sallyport init DIR'", err)
	}
	tree := map[string]any{}
	if _, err := toml.Decode(string(text), &tree); err != nil {
		return File{}, nil, syntaxError(path, err)
	}
	d := &decoder{path: path, lines: locateKeys(string(text)), getenv: getenv, from: map[string]string{}}
	var f File
	d.table(reflect.ValueOf(&f).Elem(), tree, "", nil)
	d.crossCheck(&f)
	d.checkTrust(&f)
	if len(d.mistakes) > 0 {
		slices.SortStableFunc(d.mistakes, func(a, b mistake) int { return a.line - b.line })
		return File{}, nil, &configError{path, d.mistakes}
	}
	f.resolvePaths(filepath.Dir(path))
	return f, d, nil
}

func syntaxError(path string, err error) error {
	if perr, ok := errors.AsType[toml.ParseError](err); ok {
		key := perr.LastKey
		if key == "" {
			key = "syntax"
		}
		return &configError{path, []mistake{{perr.Position.Line, key, perr.Message}}}
	}
	return fmt.Errorf("configuration %q: %w", path, err)
}

// A decoder moves a parsed TOML tree into the structs of config.go.
type decoder struct {
	path     string
	lines    map[string]int
	getenv   func(string) string
	from     map[string]string // the environment variable that a key's value is from
	mistakes []mistake
	warnings []mistake // what is allowed, and should not be
	// pipes says that checkFiles has found a pipe where a file belongs.
	pipes bool
}

func (d *decoder) fail(key, format string, args ...any) {
	d.mistakes = append(d.mistakes, d.about(key, fmt.Sprintf(format, args...)))
}

func (d *decoder) warn(key, format string, args ...any) {
	d.warnings = append(d.warnings, d.about(key, fmt.Sprintf(format, args...)))
}

func (d *decoder) about(key, text string) mistake {
	if variable := d.from[key]; variable != "" {
		return mistake{0, key, "environment variable " + variable + ": " + text}
	}
	return mistake{d.lines[key], key, text}
}

// mistaken reports whether something is wrong with key already: then it is not
// worth a second line that its value is missing.
func (d *decoder) mistaken(key string) bool {
	return slices.ContainsFunc(d.mistakes, func(m mistake) bool { return m.key == key })
}

// table fills a struct from a TOML table; path is its dotted name.
func (d *decoder) table(v reflect.Value, tree map[string]any, path string, defaults map[string]string) {
	known := map[string]bool{}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		key := field.Tag.Get("key")
		known[key] = true
		d.field(v.Field(i), field, tree[key], join(path, key), defaults)
	}
	for key := range tree {
		if !known[key] {
			d.fail(join(path, key), "unknown key; allowed here: %s", strings.Join(keysOf(v.Type()), ", "))
		}
	}
}

func (d *decoder) field(v reflect.Value, field reflect.StructField, raw any, path string, defaults map[string]string) {
	switch {
	case v.Kind() == reflect.Struct:
		sub, ok := raw.(map[string]any)
		if raw != nil && !ok {
			d.fail(path, "must be a table: [%s]", path)
		}
		d.table(v, sub, path, parseDefaults(field.Tag.Get("defaults")))
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		d.tables(v, raw, path)
	default:
		fallback, ok := defaults[field.Tag.Get("key")]
		if !ok {
			fallback = field.Tag.Get("default")
		}
		d.value(v, field, raw, path, fallback)
	}
}

// tables fills a list of structs from [[path]] tables.
func (d *decoder) tables(v reflect.Value, raw any, path string) {
	if raw == nil {
		return
	}
	list, ok := raw.([]map[string]any)
	if !ok {
		d.fail(path, "must be a list of tables: [[%s]]", path)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(list), len(list)))
	for i, sub := range list {
		d.table(v.Index(i), sub, fmt.Sprintf("%s[%d]", path, i), nil)
	}
}

// value fills one setting from the environment, the file, or its default.
func (d *decoder) value(v reflect.Value, field reflect.StructField, raw any, path, fallback string) {
	name := variableOf(path)
	if s := d.getenv(name); s != "" && !strings.Contains(path, "[") {
		d.from[path] = name
		d.fromText(v, s, path)
	} else if raw == nil {
		d.fromText(v, fallback, path)
		return
	} else if !d.fromTree(v, raw, path) {
		return
	}
	if !d.mistaken(path) {
		d.check(v, field.Tag.Get("check"), path)
	}
}

// fromText sets v from the text of a default or of an environment variable;
// lists are separated by commas.
func (d *decoder) fromText(v reflect.Value, s, path string) {
	var err error
	switch v.Interface().(type) {
	case string:
		v.SetString(s)
	case bool:
		var b bool
		b, err = strconv.ParseBool(cmp.Or(s, "false"))
		v.SetBool(b)
	case int64:
		var n int64
		n, err = strconv.ParseInt(cmp.Or(s, "0"), 10, 64)
		v.SetInt(n)
	case time.Duration:
		var t time.Duration
		t, err = time.ParseDuration(cmp.Or(s, "0s"))
		v.SetInt(int64(t))
	case []string:
		if s != "" {
			v.Set(reflect.ValueOf(strings.Split(s, ",")))
		}
	case map[string]string:
		if s != "" {
			err = errors.New("cannot be set in the environment")
		}
	}
	if err != nil {
		d.fail(path, "%q is not %s", s, describe(v))
	}
}

// fromTree sets v from a parsed TOML value of the right type.
func (d *decoder) fromTree(v reflect.Value, raw any, path string) bool {
	var ok bool
	switch v.Interface().(type) {
	case time.Duration:
		s, _ := raw.(string)
		t, err := time.ParseDuration(s)
		ok = err == nil
		v.SetInt(int64(t))
	case []string:
		var list []string
		list, ok = stringList(raw)
		v.Set(reflect.ValueOf(list))
	case map[string]string:
		var table map[string]string
		table, ok = stringTable(raw)
		v.Set(reflect.ValueOf(table))
	default:
		rv := reflect.ValueOf(raw)
		if ok = rv.Type() == v.Type(); ok {
			v.Set(rv)
		}
	}
	if !ok {
		d.fail(path, "must be %s", describe(v))
	}
	return ok
}

// check applies the rule of a check tag to v.
func (d *decoder) check(v reflect.Value, rule, path string) {
	var wrong string
	switch x := v.Interface().(type) {
	case string:
		if wrong = checkText(rule, x); wrong != "" && x != "" {
			d.fail(path, "%q %s", x, wrong)
		}
	case []string:
		for _, s := range x {
			if wrong = checkText(rule, s); wrong != "" {
				d.fail(path, "%q %s", s, wrong)
			}
		}
	case int64:
		if wrong = checkInt(rule, x); wrong != "" {
			d.fail(path, "%d %s", x, wrong)
		}
	case time.Duration:
		if wrong = checkDuration(rule, x); wrong != "" {
			d.fail(path, "%q %s", x.String(), wrong)
		}
	}
}

func describe(v reflect.Value) string {
	switch v.Interface().(type) {
	case bool:
		return "true or false"
	case int64:
		return "a whole number"
	case time.Duration:
		return `a time span in quotes, such as "30s", "5m" or "1h30m"`
	case []string:
		return `a list of strings, such as ["a", "b"]`
	case map[string]string:
		return `a table of strings, such as { name = "value" }`
	default:
		return "a string in quotes"
	}
}

func stringList(raw any) ([]string, bool) {
	items, ok := raw.([]any)
	if !ok {
		return nil, false
	}
	list := make([]string, 0, len(items))
	for _, item := range items {
		s, ok := item.(string)
		if !ok {
			return nil, false
		}
		list = append(list, s)
	}
	return list, true
}

func stringTable(raw any) (map[string]string, bool) {
	items, ok := raw.(map[string]any)
	if !ok {
		return nil, false
	}
	table := make(map[string]string, len(items))
	for key, item := range items {
		s, ok := item.(string)
		if !ok {
			return nil, false
		}
		table[key] = s
	}
	return table, true
}

// parseDefaults reads a defaults tag: "key=value".
func parseDefaults(tag string) map[string]string {
	key, value, found := strings.Cut(tag, "=")
	if !found {
		return nil
	}
	return map[string]string{key: value}
}

func keysOf(t reflect.Type) []string {
	keys := make([]string, 0, t.NumField())
	for field := range t.Fields() {
		keys = append(keys, field.Tag.Get("key"))
	}
	return keys
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	// A device or a pipe does not tell its size beforehand.
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%q is larger than %d bytes", path, limit)
	}
	if err != nil {
		return nil, err
	}
	return text, nil
}
