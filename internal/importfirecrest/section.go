package importfirecrest

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// A Note is something about the configuration that an administrator has to know.
type Note struct {
	File string // of a folder of clusters; empty for the file itself
	Line int    // in the YAML file
	// Key is the full name, such as "clusters[0].ssh.host".
	Key  string
	Text string
}

// A section is a mapping of the YAML file whose keys are taken one by one. Those that
// nobody has taken are reported, so that nothing is dropped in silence.
type section struct {
	report *[]Note
	file   string
	path   string
	line   int
	values map[string]*yaml.Node // by name in snake_case
	lines  map[string]int
	given  map[string]string // as the file spells them
	taken  map[string]bool
}

// newSection takes a node apart; a missing one is an empty section.
func newSection(report *[]Note, file, path string, n *yaml.Node) *section {
	s := &section{report: report, file: file, path: path, values: map[string]*yaml.Node{}, lines: map[string]int{}, given: map[string]string{}, taken: map[string]bool{}}
	if n = resolve(n); n == nil {
		return s
	}
	s.line = n.Line
	if n.Kind != yaml.MappingNode {
		s.note("", "is no mapping and was not read")
		return s
	}
	s.add(n)
	return s
}

// add adds the keys of a mapping and then those that it merges ("<<"), of which its own
// and earlier ones have precedence. Files with circles are refused before.
func (s *section) add(n *yaml.Node) {
	if n = resolve(n); n == nil {
		return
	}
	if n.Kind == yaml.SequenceNode {
		for _, each := range n.Content {
			s.add(each)
		}
		return
	}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := snake(n.Content[i].Value)
		_, there := s.lines[key]
		switch {
		case n.Content[i].Tag == "!!merge":
			merged = append(merged, n.Content[i+1])
		case !there:
			s.values[key], s.lines[key], s.given[key] = resolve(n.Content[i+1]), n.Content[i].Line, n.Content[i].Value
		}
	}
	for _, each := range merged {
		s.add(each)
	}
}

// resolve follows an alias; null is nil.
func resolve(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	return n
}

// snake is a key as FirecREST's documentation writes it; its models take camelCase too.
func snake(key string) string {
	var b strings.Builder
	for _, r := range key {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// name is the full name of a key.
func (s *section) name(key string) string {
	if given, ok := s.given[key]; ok {
		key = given
	}
	switch {
	case s.path == "":
		return key
	case key == "":
		return s.path
	}
	return s.path + "." + key
}

// note reports something about a key, or about the section if key is empty.
func (s *section) note(key, format string, args ...any) {
	line := s.line
	if at, ok := s.lines[key]; ok {
		line = at
	}
	*s.report = append(*s.report, Note{File: s.file, Line: line, Key: oneLine(s.name(key)), Text: oneLine(fmt.Sprintf(format, args...))})
}

func (s *section) has(key string) bool { return s.values[key] != nil }

// text takes a scalar; "" if there is none.
func (s *section) text(key string) string {
	s.taken[key] = true
	n := s.values[key]
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		s.note(key, "is no text and was not read")
		return ""
	}
	return n.Value
}

// number takes a whole number from least to most; 0 if there is none or another one.
func (s *section) number(key string, least, most int64) int64 {
	text := s.text(key)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
	switch {
	case err != nil:
		s.note(key, "is no whole number and was not read")
		return 0
	case n < least || n > most:
		s.note(key, "is %d, and from %d to %d is allowed here: set to %d", n, least, most, min(max(n, least), most))
		return min(max(n, least), most)
	}
	return n
}

// flag takes a truth value, in all the words that FirecREST takes.
func (s *section) flag(key string) bool {
	switch strings.ToLower(s.text(key)) {
	case "true", "yes", "on", "1", "y", "t":
		return true
	case "", "false", "no", "off", "0", "n", "f":
		return false
	}
	s.note(key, "is neither true nor false: set to false")
	return false
}

// url takes a URL, and leaves out what it holds of name and password.
func (s *section) url(key string) string { return s.publicURL(key, s.text(key)) }

func (s *section) publicURL(key, text string) string {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return ""
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		s.note(key, "is no URL of http or https and was not read")
		return ""
	case u.User != nil:
		s.note(key, "holds a name or password, which was not copied and has no counterpart")
		u.User = nil
		return u.String()
	}
	return text
}

// texts takes a list of scalars, or one.
func (s *section) texts(key string) (list []string) {
	s.taken[key] = true
	n := s.values[key]
	switch {
	case n == nil:
	case n.Kind == yaml.ScalarNode:
		return []string{n.Value}
	case n.Kind == yaml.SequenceNode:
		for _, each := range n.Content {
			if each = resolve(each); each != nil && each.Kind == yaml.ScalarNode {
				list = append(list, each.Value)
				continue
			}
			s.note(key, "has a part that is no text and was not read")
		}
	default:
		s.note(key, "is no list and was not read")
	}
	return list
}

// section takes a mapping.
func (s *section) section(key string) *section {
	s.taken[key] = true
	sub := newSection(s.report, s.file, s.name(key), s.values[key])
	if sub.line == 0 { // missing: what is said of it is said of where it should be
		sub.line = cmp.Or(s.lines[key], s.line)
	}
	return sub
}

// sections takes a list of mappings.
func (s *section) sections(key string) (list []*section) {
	s.taken[key] = true
	n := s.values[key]
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		s.note(key, "is no list and was not read")
		return nil
	}
	for i, each := range n.Content {
		list = append(list, newSection(s.report, s.file, fmt.Sprintf("%s[%d]", s.name(key), i), each))
	}
	return list
}

// drop takes a key that has no counterpart, and says so if it is there.
func (s *section) drop(key, why string) {
	s.taken[key] = true
	if s.has(key) {
		s.note(key, "has no counterpart: %s", why)
	}
}

// rest reports the keys that nobody has taken.
func (s *section) rest() {
	var left []string
	for key := range s.values {
		if !s.taken[key] {
			left = append(left, key)
		}
	}
	slices.SortFunc(left, func(a, b string) int { return s.lines[a] - s.lines[b] })
	for _, key := range left {
		s.note(key, "is not known to FirecREST 2 as far as this program knows; it was not read")
	}
}
