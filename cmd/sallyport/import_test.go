package main

import (
	"os"
	"path/filepath"
	"testing"
)

// What import-firecrest makes of the configurations that FirecREST's documentation
// describes is, but for files that the notes ask for, a good configuration.
func TestImportedConfigurationsAreGood(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../internal/importfirecrest/testdata/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		f, err := loadConfig(file, noEnv)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := os.Stat(file); err != nil || len(f.Systems) == 0 || len(f.Issuers) == 0 || !f.FirecREST.Enabled {
			t.Errorf("%s: %+v", file, f)
		}
	}
}
