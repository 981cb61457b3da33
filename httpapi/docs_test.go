package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// codesIn collects the values of all "x-codes" in a document.
func codesIn(v any, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			if list, ok := inner.([]any); ok && name == "x-codes" {
				for _, code := range list {
					into[code.(string)] = true
				}
			}
			codesIn(inner, into)
		}
	case []any:
		for _, inner := range v {
			codesIn(inner, into)
		}
	}
}

func TestTheDocumentHasEveryCodeOfTheTableAndNoOther(t *testing.T) {
	t.Parallel()
	var doc struct {
		Components struct {
			Schemas struct {
				Problem struct {
					Properties struct {
						Code struct{ Enum []string }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	var table []string
	for _, row := range kinds {
		if !slices.Contains(table, row.code) {
			table = append(table, row.code)
		}
	}
	enum := doc.Components.Schemas.Problem.Properties.Code.Enum
	slices.Sort(table)
	slices.Sort(enum)
	if !slices.Equal(table, enum) {
		t.Errorf("the table has\n%q\nand the document\n%q", table, enum)
	}

	var all any
	if err := json.Unmarshal(openAPI, &all); err != nil {
		t.Fatal(err)
	}
	used := make(map[string]bool)
	codesIn(all, used)
	for _, code := range table {
		// These belong to no public call: no such path or method, the admin socket,
		// a client that is not there.
		elsewhere := []string{"method_not_allowed", "peer_refused", "serial_unknown", "step_refused", "revocation_not_allowed", "revocations_unavailable", "not_revoked", "client_gone", "approval_required", "proposals_full", "manifest_not_acceptable"}
		if used[code] == slices.Contains(elsewhere, code) {
			t.Errorf("code %q: listed with a call: %v", code, used[code])
		}
		delete(used, code)
	}
	if len(used) > 0 {
		t.Errorf("the document has codes that the table has not: %v", used)
	}
}

func TestACodeHasOneStatusAndOneText(t *testing.T) {
	t.Parallel()
	seen := make(map[string]kind)
	for _, row := range kinds {
		if before, ok := seen[row.code]; ok && before != row.kind {
			t.Errorf("code %q is %+v and %+v", row.code, before, row.kind)
		}
		seen[row.code] = row.kind
		if !regexp.MustCompile(`^[a-z_]+$`).MatchString(row.code) || row.title == "" || !strings.HasSuffix(row.detail, ".") {
			t.Errorf("row %+v", row.kind)
		}
		if (row.status == 503 || row.status == 429) != (row.retry > 0) {
			t.Errorf("%s: status %d, Retry-After %d", row.code, row.status, row.retry)
		}
	}
	if last := kinds[len(kinds)-1]; last.err != errInternal || last.status != 500 { //nolint:errorlint // compares rows
		t.Errorf("the last row is %+v", last.kind)
	}
}

func TestEveryPublicRouteIsInTheDocument(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	var doc document
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	var documented, served []string
	for _, path := range doc.Paths {
		for _, op := range path.value {
			documented = append(documented, strings.ToUpper(op.name)+" "+path.name)
			if op.value.Summary == "" || op.value.Curl == "" || op.value.OperationID == "" {
				t.Errorf("%s %s lacks a summary, an example or a name", op.name, path.name)
			}
		}
	}
	for _, r := range append(s.api.publicRoutes(), (&docs{}).routes()...) {
		served = append(served, r.method+" "+r.path)
	}
	slices.Sort(documented)
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("documented\n%q\nserved\n%q", documented, served)
	}
}

func TestThePageLoadsNothingAndShowsEverything(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	a := s.do("GET", "/docs", "", "Authorization", "", "Accept", "text/html,*/*;q=0.8")
	if a.status != 200 || a.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %s", a.status, a.header.Get("Content-Type"))
	}
	// The examples name https://SERVICE; nothing else is a URL, and nothing is
	// loaded or run.
	rest := strings.ReplaceAll(a.body, "https://SERVICE/", "")
	if found := regexp.MustCompile(`(?i)https?:|src=|<script|<link|@import|url\(|\son[a-z]+=`).FindString(rest); found != "" {
		t.Errorf("the page has %q", found)
	}
	for _, href := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(a.body, -1) {
		if id, ok := strings.CutPrefix(href[1], "#"); ok && !strings.Contains(a.body, `id="`+id+`"`) {
			t.Errorf("link to #%s leads nowhere", id)
		}
	}
	for _, want := range []string{
		"/v1/systems/{system}/exec", "<code>stdin_base64</code>", "list of string", "object of string", "integer or null",
		"at most 16384 characters", `id="outcome_unknown"`, "curl -sSN", "Retry-After", "&#34;start&#34;", "base64",
	} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	if strings.Contains(a.body, "ZgotmplZ") || strings.Contains(a.body, "%!") || strings.Contains(a.body, "&lt;nil&gt;") {
		t.Error("the template met something that it could not show")
	}
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(a.body)
	if style == nil {
		t.Fatal("no style")
	}
	sum := sha256.Sum256([]byte(style[1]))
	policy := a.header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; ") || !strings.Contains(policy, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") {
		t.Errorf("the policy %q does not admit the page's style", policy)
	}
}

func TestTheDocumentKeepsItsOrder(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	body := s.do("GET", "/openapi.json", "").body
	last := -1
	for _, part := range []string{`"openapi"`, `"info"`, `"paths"`, `"/v1/systems/{system}/exec"`, `"/v1/certificates"`, `"/docs"`, `"components"`} {
		i := strings.Index(body, part)
		if i <= last {
			t.Errorf("%s at %d, after %d", part, i, last)
		}
		last = i
	}
	var whole, served any
	if json.Unmarshal(openAPI, &whole) != nil || json.Unmarshal([]byte(body), &served) != nil {
		t.Fatal("not JSON")
	}
	if a, b := jsonOf(t, whole), jsonOf(t, served); a != b {
		t.Error("with all dependencies the served document is not the written one")
	}
}
