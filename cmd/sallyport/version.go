package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the release build: -ldflags "-X main.version=v1.2.3".
var version = "dev"

func newVersion() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print version and build", Args: exactArgs()}
	form := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		revision := "unknown"
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, s := range info.Settings {
				if s.Key == "vcs.revision" {
					revision = s.Value
				}
			}
		}
		if *form == "json" {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{
				"version": version, "revision": revision, "go": runtime.Version(),
			})
		}
		fmt.Fprintf(cmd.OutOrStdout(), "sallyport %s (revision %s, %s)\n", version, revision, runtime.Version())
		return nil
	}
	return cmd
}
