// Package bounds_test compares docs/bounds.md, the list of all that grows with requests,
// with the code.
package bounds_test

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// number is a bound in the list: the file of the code, the name of the constant there, its value.
var number = regexp.MustCompile("`([a-z/_]+\\.go)` `(\\w+)` = ([0-9<]+)")

func list(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "bounds.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestNumbersOfTheListAreThoseOfTheCode evaluates every constant that the list names.
func TestNumbersOfTheListAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	found := number.FindAllStringSubmatch(list(t), -1)
	if len(found) < 30 {
		t.Errorf("the list names %d constants", len(found))
	}
	for _, row := range found {
		want, err := types.Eval(token.NewFileSet(), nil, token.NoPos, row[3])
		if err != nil {
			t.Errorf("%s: %v", row[0], err)
			continue
		}
		got := valueOf(t, filepath.Join(root, row[1]), row[2])
		if got == nil || !constant.Compare(constant.ToInt(got), token.EQL, constant.ToInt(want.Value)) {
			t.Errorf("%s: the code has %v", row[0], got)
		}
	}
}

// valueOf is a constant that an expression without names gives.
func valueOf(t *testing.T, file, name string) constant.Value {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Error(err)
		return nil
	}
	for _, d := range tree.Decls {
		group, ok := d.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, s := range group.Specs {
			spec := s.(*ast.ValueSpec)
			if i := slices.IndexFunc(spec.Names, func(id *ast.Ident) bool { return id.Name == name }); i >= 0 && i < len(spec.Values) {
				v, err := types.Eval(token.NewFileSet(), nil, token.NoPos, types.ExprString(spec.Values[i]))
				if err != nil {
					t.Errorf("%s: %s: %v", file, name, err)
					return nil
				}
				return v.Value
			}
		}
	}
	return nil
}

// TestEveryFileThatKeepsSomethingIsInTheList: a type with a map, a channel, a list or a table in it
// may grow with requests, so its file has a row, or stands with those that do not.
func TestEveryFileThatKeepsSomethingIsInTheList(t *testing.T) {
	t.Parallel()
	text := list(t)
	for _, dir := range []string{"ca", "cmd/sallyport", "executor", "httpapi", "identity", "internal/fair", "metrics", "policy", "store"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			name := filepath.ToSlash(strings.TrimPrefix(path, root+"/"))
			if ofTests(name) || strings.Contains(text, "`"+name+"`") {
				return nil
			}
			if what := keeps(t, path); what != "" {
				t.Errorf("`%s` is not in docs/bounds.md, and %s may grow", name, what)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// ofTests says that a file is no part of the service that runs.
func ofTests(name string) bool {
	for _, dir := range []string{"executor/sshtest/", "identity/identitytest/", "store/storetest/", "httpapi/contract/"} {
		if strings.HasPrefix(name, dir) {
			return true
		}
	}
	return false
}

// keeps names a field of a struct that can hold any number of things; "" if there is none.
func keeps(t *testing.T, file string) (what string) {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		s, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, f := range s.Fields.List {
			if holds(f.Type) && len(f.Names) > 0 && what == "" {
				what = spec.Name.Name + "." + f.Names[0].Name
			}
		}
		return true
	})
	return what
}

func holds(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.MapType:
		return true
	case *ast.ChanType:
		s, ok := e.Value.(*ast.StructType) // a signal holds nothing
		return !ok || len(s.Fields.List) > 0
	}
	text := types.ExprString(e)
	return strings.Contains(text, "fair.") || strings.Contains(text, "list.List") || strings.Contains(text, "sync.Map")
}
