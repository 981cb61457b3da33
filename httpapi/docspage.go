package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// The part of an OpenAPI document that the page shows.
type document struct {
	Info struct {
		Title, Summary, Description string
	}
	Paths      ordered[pathItem]
	Components struct {
		Responses map[string]responseDoc
		Schemas   ordered[schema]
	}
}

type pathItem = ordered[operation] // by method

type operation struct {
	OperationID, Summary, Description string
	Curl                              string `json:"x-curl"`
	Security                          []map[string][]string
	Parameters                        []parameter
	RequestBody                       struct {
		Description string
		Content     map[string]mediaDoc
	}
	Responses ordered[responseDoc] // by status
}

type parameter struct {
	Name, In, Description string
	Required              bool
	Schema                schema
}

type responseDoc struct {
	Ref         string `json:"$ref"`
	Description string
	Content     ordered[mediaDoc]
	Codes       []string `json:"x-codes"`
}

type mediaDoc struct{ Schema schema }

// A schema is the subset of JSON Schema that the document uses.
type schema struct {
	Ref         string `json:"$ref"`
	Description string
	Type        any // a name or a list of names
	Const       any // of any type
	Enum        []string
	Properties  ordered[schema]
	Required    []string
	Items       *schema
	OneOf       []schema
	Format      string
	Encoding    string `json:"contentEncoding"`
	Minimum     json.Number
	Maximum     json.Number
	Above       json.Number `json:"exclusiveMinimum"`
	MinLength   json.Number
	MaxLength   json.Number
	MinItems    json.Number
	MaxItems    json.Number
	Additional  any `json:"additionalProperties"` // a schema or false
}

// What the template gets.
type docsPage struct {
	Title, Summary, Description string
	Calls                       []callView
	Types                       []typeView
	Errors                      []errorView
}

type callView struct {
	Method, Path, ID, Summary, Description, Curl string
	Token                                        bool
	Fields                                       []fieldView
	BodyNote                                     string
	Answers                                      []answerView
}

type fieldView struct {
	Name, Place, Type, Limits, Description string
	Required                               bool
}

type answerView struct {
	Status, Reason, Description string
	Media                       []mediaView
	Codes                       []string
}

// A mediaView links to its type if that has a section of its own.
type mediaView struct {
	Media, Type string
	Link        bool
}

type typeView struct {
	Name, Description, OneOf string
	Fields                   []fieldView
}

type errorView struct {
	Status              int
	Code, Title, Detail string
}

func pageOf(doc document) docsPage {
	page := docsPage{Title: doc.Info.Title, Summary: doc.Info.Summary, Description: doc.Info.Description}
	for _, path := range doc.Paths {
		for _, op := range path.value {
			page.Calls = append(page.Calls, doc.call(op.name, path.name, op.value))
		}
	}
	for _, s := range doc.Components.Schemas {
		page.Types = append(page.Types, typeView{
			Name: s.name, Description: s.value.Description, OneOf: alternatives(s.value.OneOf), Fields: fieldsOf(s.value, ""),
		})
	}
	seen := make(map[string]bool)
	for _, row := range kinds {
		if !seen[row.code] {
			page.Errors = append(page.Errors, errorView{row.status, row.code, row.title, row.detail})
		}
		seen[row.code] = true
	}
	return page
}

func (d document) call(method, path string, op operation) callView {
	view := callView{
		Method: strings.ToUpper(method), Path: path, ID: op.OperationID, Summary: op.Summary,
		Description: op.Description, Curl: op.Curl, Token: len(op.Security) > 0, BodyNote: op.RequestBody.Description,
	}
	for _, p := range op.Parameters {
		view.Fields = append(view.Fields, fieldView{
			Name: p.Name, Place: p.In, Type: p.Schema.typeText(), Limits: p.Schema.limits(),
			Description: p.Description, Required: p.Required,
		})
	}
	for _, media := range op.RequestBody.Content {
		view.Fields = append(view.Fields, fieldsOf(d.resolve(media.Schema), "body")...)
	}
	for _, r := range op.Responses {
		view.Answers = append(view.Answers, d.answer(r.name, r.value))
	}
	return view
}

func (d document) answer(status string, r responseDoc) answerView {
	if r.Ref != "" {
		r = d.Components.Responses[lastPart(r.Ref)]
	}
	view := answerView{Status: status, Description: r.Description, Codes: r.Codes}
	if n, err := strconv.Atoi(status); err == nil {
		view.Reason = http.StatusText(n)
	}
	for _, m := range r.Content {
		view.Media = append(view.Media, mediaView{m.name, m.value.Schema.typeText(), m.value.Schema.Ref != ""})
	}
	return view
}

func (d document) resolve(s schema) schema {
	for _, named := range d.Components.Schemas {
		if s.Ref != "" && named.name == lastPart(s.Ref) {
			return named.value
		}
	}
	return s
}

func fieldsOf(s schema, place string) []fieldView {
	var fields []fieldView
	for _, p := range s.Properties {
		view := fieldView{
			Name: p.name, Place: place, Type: p.value.typeText(), Limits: p.value.limits(), Description: p.value.Description,
		}
		for _, name := range s.Required {
			view.Required = view.Required || name == p.name
		}
		fields = append(fields, view)
	}
	return fields
}

// typeText is the type in words: "string or null", "list of string".
func (s schema) typeText() string {
	switch {
	case s.Ref != "":
		return lastPart(s.Ref)
	case s.Const != nil:
		return constText(s.Const)
	case len(s.OneOf) > 0 && s.Type == nil:
		return alternatives(s.OneOf)
	case s.Items != nil:
		return "list of " + s.Items.typeText()
	}
	switch t := s.Type.(type) {
	case string:
		if inner, ok := s.Additional.(map[string]any); ok {
			return fmt.Sprintf("%s of %s", t, inner["type"])
		}
		return t
	case []any:
		var names []string
		for _, name := range t {
			names = append(names, fmt.Sprint(name))
		}
		return strings.Join(names, " or ")
	}
	return ""
}

func alternatives(list []schema) string {
	var names []string
	for _, s := range list {
		if text := s.typeText(); text != "" {
			names = append(names, text)
		}
	}
	return strings.Join(names, " or ")
}

// limits is what else the value must keep.
func (s schema) limits() string {
	var words []string
	add := func(format string, value json.Number) {
		if value != "" {
			words = append(words, fmt.Sprintf(format, value))
		}
	}
	if s.Enum != nil {
		words = append(words, strings.Join(s.Enum, ", "))
	}
	add("at least %s", s.Minimum)
	add("more than %s", s.Above)
	add("at most %s", s.Maximum)
	add("at least %s characters", s.MinLength)
	add("at most %s characters", s.MaxLength)
	add("at least %s items", s.MinItems)
	add("at most %s items", s.MaxItems)
	for _, word := range []string{s.Format, s.Encoding} {
		if word != "" {
			words = append(words, word)
		}
	}
	return strings.Join(words, "; ")
}

func lastPart(ref string) string { return ref[strings.LastIndex(ref, "/")+1:] }

// constText is a constant as JSON has it.
func constText(value any) string {
	if text, ok := value.(string); ok {
		return strconv.Quote(text)
	}
	return fmt.Sprint(value)
}
