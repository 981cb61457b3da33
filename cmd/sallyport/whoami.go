package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func newWhoami(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "whoami", Short: "Show what the service reads in your token", GroupID: "use", Args: exactArgs(),
	}
	client := clientFlags(cmd, s)
	form := outputFlag(cmd)
	first := []string{"issuer", "login"} // come first, the last of them before all
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := client.connect(cmd.Context(), s)
		if err != nil {
			return err
		}
		var answer map[string]json.RawMessage
		if err := c.call(cmd.Context(), http.MethodGet, "/v1/whoami", nil, &answer); err != nil {
			return err
		}
		if *form == "json" {
			return printJSON(s.out, answer)
		}
		table := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
		keys := slices.SortedFunc(maps.Keys(answer), func(a, b string) int {
			return cmp.Or(slices.Index(first, b)-slices.Index(first, a), strings.Compare(a, b))
		})
		for _, key := range keys {
			value := string(answer[key])
			var text string
			if json.Unmarshal(answer[key], &text) == nil { // a string, perhaps an empty one
				value = text
			}
			if value != "" {
				fmt.Fprintf(table, "%s\t%s\n", key, value)
			}
		}
		return table.Flush()
	}
	return cmd
}
