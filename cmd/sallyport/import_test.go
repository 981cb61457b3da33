package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What import-firecrest makes of the configurations that FirecREST's documentation
// describes is a good configuration, but for files that the notes ask for, and for what
// nobody but the site can know: whether the logins of several issuers are one person's.
func TestImportedConfigurationsAreGood(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../internal/importfirecrest/testdata/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		f, err := loadConfig(file, noEnv)
		if wrong, ok := errors.AsType[*configError](err); ok && strings.Contains(file, "service.toml") {
			if n := strings.Count(wrong.Error(), "login_namespace: is missing"); n != 2 || len(wrong.mistakes) != n {
				t.Error(err)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := os.Stat(file); err != nil || len(f.Systems) == 0 || len(f.Issuers) == 0 || !f.FirecREST.Enabled {
			t.Errorf("%s: %+v", file, f)
		}
	}
}
