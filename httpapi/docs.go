package httpapi

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
)

// openAPI is the contract, written by hand. The tests hold every request and
// answer against it.
//
//go:embed openapi.json
var openAPI []byte

//go:embed docs.html
var docsHTML string

//go:embed docs.css
var docsCSS string

// docs is the API document and its page, both made once.
type docs struct {
	document, page *shared
	policy         string // Content-Security-Policy of the page
}

// newDocs describes what routes has, and itself.
func newDocs(routes []route) (*docs, error) {
	d := &docs{}
	var doc document
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		return nil, fmt.Errorf("openapi.json: %w", err)
	}
	served := append(slices.Clone(routes), d.routes()...)
	doc.Paths = slices.DeleteFunc(doc.Paths, func(p member[pathItem]) bool {
		return !slices.ContainsFunc(served, func(r route) bool { return r.path == p.name })
	})
	text, err := onlyPaths(openAPI, doc.Paths)
	if err != nil {
		return nil, fmt.Errorf("openapi.json: %w", err)
	}
	d.document = newShared(text)
	var page bytes.Buffer
	if err := pageTemplate().Execute(&page, pageOf(doc)); err != nil {
		return nil, fmt.Errorf("docs page: %w", err)
	}
	d.page = newShared(page.Bytes())
	// The browser applies the one embedded style sheet, and loads nothing at all.
	sum := sha256.Sum256([]byte(docsCSS))
	d.policy = "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return d, nil
}

func (d *docs) routes() []route {
	return []route{
		{http.MethodGet, "/openapi.json", d.serveDocument},
		{http.MethodGet, "/docs", d.servePage},
	}
}

func (d *docs) serveDocument(w http.ResponseWriter, r *http.Request) error {
	return d.document.serve(w, r, "application/json")
}

func (d *docs) servePage(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Security-Policy", d.policy)
	return d.page.serve(w, r, "text/html; charset=utf-8")
}

// onlyPaths is the document with these paths only, in the order as written.
func onlyPaths(raw []byte, paths ordered[pathItem]) ([]byte, error) {
	var doc ordered[json.RawMessage]
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	for i := range doc {
		if doc[i].name != "paths" {
			continue
		}
		var all ordered[json.RawMessage]
		if err := json.Unmarshal(doc[i].value, &all); err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(all, func(m member[json.RawMessage]) bool {
			return !slices.ContainsFunc(paths, func(p member[pathItem]) bool { return p.name == m.name })
		})
		kept, err := json.Marshal(all)
		if err != nil {
			return nil, err
		}
		doc[i].value = kept
	}
	return json.Marshal(doc)
}

// ordered is a JSON object that keeps the order in which it was written.
type ordered[T any] []member[T]

type member[T any] struct {
	name  string
	value T
}

// UnmarshalJSON reads an object.
func (o *ordered[T]) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		m := member[T]{name: fmt.Sprint(key)}
		if err := dec.Decode(&m.value); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		*o = append(*o, m)
	}
	return nil
}

// MarshalJSON writes an object.
func (o ordered[T]) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(append(append(name, ':'), value...))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func pageTemplate() *template.Template {
	return template.Must(template.New("docs").Funcs(template.FuncMap{
		"upper": strings.ToUpper,
		"css":   func() template.CSS { return template.CSS(docsCSS) }, //nolint:gosec // embedded, not input
	}).Parse(docsHTML))
}
