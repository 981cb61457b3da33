package main

import (
	"cmp"
	"embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// configSource is the text whose comments are the reference: the types of these files.
//
//go:embed config.go config_*.go
var configSource embed.FS

// A setting is one key of the configuration with all that a reader needs.
type setting struct {
	path, key, kind, fallback, allowed, example, doc string
}

// A section is one table of the configuration.
type section struct {
	path, doc string
	repeated  bool
	// inRepeated says that it stands in a table that is repeated: it is one of an
	// element, and means nothing without one.
	inRepeated bool
	settings   []setting
}

// reference returns the sections of the configuration file in their order, from
// the structs of config.go and their comments.
func reference() ([]section, error) {
	docs, err := fieldDocs()
	if err != nil {
		return nil, err
	}
	return describeTable(reflect.TypeFor[File](), section{}, docs, nil), nil
}

func describeTable(t reflect.Type, s section, docs map[string]string, defaults map[string]string) []section {
	var below []section
	for f := range t.Fields() {
		doc := docs[t.Name()+"."+f.Name]
		path := join(s.path, f.Tag.Get("key"))
		switch elem := f.Type; {
		case elem.Kind() == reflect.Struct:
			next := section{path: path, doc: doc, inRepeated: s.repeated || s.inRepeated}
			below = append(below, describeTable(elem, next, docs, parseDefaults(f.Tag.Get("defaults")))...)
		case elem.Kind() == reflect.Slice && elem.Elem().Kind() == reflect.Struct:
			next := section{path: path, doc: doc, repeated: true, inRepeated: s.repeated || s.inRepeated}
			below = append(below, describeTable(elem.Elem(), next, docs, nil)...)
		default:
			s.settings = append(s.settings, describeField(f, path, doc, defaults))
		}
	}
	return append([]section{s}, below...)
}

func describeField(f reflect.StructField, path, doc string, defaults map[string]string) setting {
	fallback, ok := defaults[f.Tag.Get("key")]
	if !ok {
		fallback = f.Tag.Get("default")
	}
	return setting{
		path: path, key: f.Tag.Get("key"), doc: doc, fallback: fallback,
		kind: kindOf(f.Type), allowed: allowedText(f.Tag.Get("check")), example: f.Tag.Get("example"),
	}
}

// fieldDocs returns the comment of each field under "Type.Field". A field without
// one shares the comment of the field above it.
func fieldDocs() (map[string]string, error) {
	files, err := fs.Glob(configSource, "*.go")
	if err != nil {
		return nil, fmt.Errorf("configuration reference: %w", err)
	}
	docs := map[string]string{}
	for _, name := range files {
		text, err := configSource.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("configuration reference: %w", err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("configuration reference: %w", err)
		}
		addDocs(docs, file)
	}
	return docs, nil
}

func addDocs(docs map[string]string, file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		fields, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		last := ""
		for _, field := range fields.Fields.List {
			if text := strings.Join(strings.Fields(field.Doc.Text()), " "); text != "" {
				last = text
			}
			if len(field.Names) > 0 {
				docs[spec.Name.Name+"."+field.Names[0].Name] = last
			}
		}
		return false
	})
}

func kindOf(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "time span"
	case reflect.TypeFor[[]string]():
		return "list of strings"
	case reflect.TypeFor[map[string]string]():
		return "table of strings"
	case reflect.TypeFor[int64]():
		return "number"
	case reflect.TypeFor[bool]():
		return "true or false"
	default:
		return "string"
	}
}

func allowedText(rule string) string {
	switch rule {
	case "":
		return ""
	case "hostport", "listen":
		return "host:port"
	case "cidr":
		return "networks in CIDR form"
	case "url":
		return "a URL"
	case "regexp":
		return "a regular expression (RE2)"
	case "alias":
		return "1 to 16 of a-z, 0-9, '-'"
	case "system":
		return "1 to 63 of a-z, 0-9, '.', '_', '-'"
	case "login":
		return "account names"
	case "folder":
		return "an absolute, clean path"
	case "fingerprint":
		return "SHA256: and 43 characters"
	case "caname":
		return "1 to 64 of a-z, A-Z, 0-9, '.', '_', '-'"
	}
	if low, high, found := strings.Cut(rule, ".."); found {
		return low + " to " + high
	}
	return strings.ReplaceAll(rule, "|", ", ")
}

// literal writes a default or example as TOML.
func (s setting) literal(text string) string {
	switch s.kind {
	case "number", "true or false", "table of strings":
		return text
	case "list of strings":
		if text == "" {
			return "[]"
		}
		parts := strings.Split(text, ",")
		for i, p := range parts {
			parts[i] = strconv.Quote(p)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	default:
		return strconv.Quote(text)
	}
}

// markdownReference is docs/configuration.md.
func markdownReference(sections []section) string {
	var b strings.Builder
	b.WriteString(referenceHead)
	for _, s := range sections {
		b.WriteString("\n## " + heading(s) + "\n\n")
		if s.doc != "" {
			b.WriteString(s.doc + "\n\n")
		}
		for _, k := range s.settings {
			fmt.Fprintf(&b, "- **`%s`** (%s", k.key, k.kind)
			if k.fallback != "" {
				fmt.Fprintf(&b, ", default `%s`", k.literal(k.fallback))
			}
			if k.allowed != "" {
				fmt.Fprintf(&b, "; allowed: %s", k.allowed)
			}
			fmt.Fprintf(&b, "): %s", k.doc)
			if k.example != "" {
				fmt.Fprintf(&b, " Example: `%s`.", k.literal(k.example))
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

const referenceHead = `# Configuration

Made from the comments in cmd/sallyport/config.go; do not edit. ` + "`go test ./cmd/sallyport -run Reference -update`" + `
writes it anew.

The file is TOML. ` + "`sallyport check-config`" + ` reports every mistake at once, each with line, key and what is allowed;
a key that is not listed here is a mistake. A setting outside the lists of tables can be overruled by an environment
variable: ` + "`server.listen`" + ` by ` + "`SALLYPORT_SERVER_LISTEN`" + `; lists are separated by commas there. Time spans are written
as in "90s", "5m" or "1h30m".
`

func heading(s section) string {
	switch {
	case s.path == "":
		return "Top level"
	case s.repeated:
		return "`[[" + s.path + "]]`"
	default:
		return "`[" + s.path + "]`"
	}
}

// templateFile is a configuration file with every option as a comment, in which
// the given settings ("path = TOML value") stand uncommented.
func templateFile(sections []section, set map[string]string) string {
	var b strings.Builder
	b.WriteString("# Configuration of Sallyport. Each option stands here with its default;\n" +
		"# take the '#' away to change it. \"sallyport check-config\" checks the file.\n")
	for _, s := range sections {
		used := !s.repeated && !s.inRepeated || hasSetting(s, set)
		if s.path != "" {
			b.WriteString("\n")
			writeComment(&b, s.doc)
			title := "[" + s.path + "]"
			if s.repeated {
				title = "[" + title + "]"
			}
			if !used {
				title = "# " + title
			}
			b.WriteString(title + "\n")
		}
		for i, k := range s.settings {
			if i == 0 || k.doc != s.settings[i-1].doc {
				b.WriteString("\n")
				writeComment(&b, k.doc)
				if k.allowed != "" {
					writeComment(&b, "Allowed: "+k.allowed+".")
				}
			}
			if value, ok := set[k.path]; ok {
				fmt.Fprintf(&b, "%s = %s\n", k.key, value)
			} else {
				fmt.Fprintf(&b, "# %s = %s\n", k.key, k.literal(cmp.Or(k.fallback, k.example)))
			}
		}
	}
	return b.String()
}

func hasSetting(s section, set map[string]string) bool {
	for _, k := range s.settings {
		if _, ok := set[k.path]; ok {
			return true
		}
	}
	return false
}

// writeComment writes text as a comment of lines of at most 78 characters.
func writeComment(b *strings.Builder, text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 78 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	if line != "#" {
		b.WriteString(line + "\n")
	}
}
