package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"sallyport/internal/importfirecrest"
)

const importLong = `Turn the configuration of a FirecREST v2 (its YAML file) into one of Sallyport, and
say what has no counterpart, with the line of the YAML file and what to do about it.
The same stands as a comment in the new file. Secrets are not copied. The values of
its Helm chart are taken as well; what FirecREST took from its environment is not seen.

  sallyport import-firecrest f7t-api-config.yaml >sallyport.toml
  sallyport import-firecrest f7t-api-config.yaml --out sallyport.toml
  sallyport check-config --config sallyport.toml`

// maxClusterFiles bounds the files of "clusters: path:FOLDER".
const maxClusterFiles = 1000

func newImport(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "import-firecrest CONFIG.yaml", Short: "Turn a configuration of FirecREST v2 into ours", GroupID: "service",
		Args: exactArgs("CONFIG.yaml"), Long: importLong,
	}
	out := cmd.Flags().String("out", "", "write the configuration to this file and not to standard output")
	force := cmd.Flags().Bool("force", false, "replace the file if it is there")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		text, err := readBounded(args[0], importfirecrest.MaxBytes)
		if err != nil {
			return err
		}
		result, err := importfirecrest.Convert(text, clusterFiles)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if err := writeImport(s.out, *out, *force, result.TOML); err != nil {
			return err
		}
		for _, n := range result.Notes {
			fmt.Fprintf(s.err, "%s:%d: %s: %s\n", cmp.Or(n.File, args[0]), n.Line, n.Key, n.Text)
		}
		if *out != "" {
			fmt.Fprintf(s.err, "%s was written; %d things are to be looked at\n", *out, len(result.Notes))
		}
		return nil
	}
	return cmd
}

func writeImport(w io.Writer, path string, force bool, text string) error {
	if path == "" {
		_, err := io.WriteString(w, text)
		return err
	}
	if _, err := os.Lstat(path); err == nil && !force {
		return usageError{fmt.Errorf("%q is there: --force replaces it", path)}
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return replaceFile(path, []byte(text))
}

// clusterFiles reads the YAML files of a folder in the order of their names.
func clusterFiles(folder string) (files []importfirecrest.Source, err error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 || len(paths) > maxClusterFiles {
		return nil, fmt.Errorf("%q has %d files *.yaml: from 1 to %d are read", folder, len(paths), maxClusterFiles)
	}
	slices.Sort(paths)
	for _, path := range paths {
		text, err := readBounded(path, importfirecrest.MaxBytes)
		if err != nil {
			return nil, err
		}
		files = append(files, importfirecrest.Source{Name: path, Text: text})
	}
	return files, nil
}
