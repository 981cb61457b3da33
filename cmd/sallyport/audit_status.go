package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"sallyport/ca"
)

func newAuditStatus(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "How far the running service has signed, shipped and archived its audit log", Args: exactArgs(),
	}
	config := configFlag(cmd, s)
	form := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, err := loadConfig(*config, s.getenv)
		if err != nil {
			return err
		}
		var answer struct {
			Parts struct {
				Audit auditStatus `json:"audit"`
			} `json:"parts"`
		}
		if err := adminClient(f).call(cmd.Context(), http.MethodGet, "/v1/admin/status", nil, &answer); err != nil {
			return err
		}
		status := answer.Parts.Audit
		if *form == "json" {
			return printJSON(s.out, status)
		}
		fmt.Fprintf(s.out, "head %d %s\n", status.Sequence, status.HeadHash)
		if g := status.Signing; g != nil {
			fmt.Fprintf(s.out, "signed up to event %d; unsigned: %s; failures: %d\n", g.SignedSequence, counted(g.Unsigned, "event"), g.Failures)
		}
		if a := status.Archive; a != nil {
			fmt.Fprintf(s.out, "archived since the start: %d files; failures: %d\n", a.Archived, a.Failures)
		}
		return printReceivers(s, status.Shipping)
	}
	return cmd
}

func printReceivers(s streams, receivers []auditReceiver) error {
	if len(receivers) == 0 {
		fmt.Fprintln(s.out, "no receivers are configured")
		return nil
	}
	table := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "RECEIVER\tKIND\tSHIPPED\tBEHIND\tBYTES\tOLDEST\tSTATE")
	for _, r := range receivers {
		age, state := "-", "good"
		if !r.Oldest.IsZero() {
			age = time.Since(r.Oldest).Round(time.Second).String()
		}
		if r.Failing != "" {
			state = r.Failing + " since " + stamp(r.Since)
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", r.Name, r.Kind, r.Shipped, r.Records, r.Bytes, age, state)
	}
	return table.Flush()
}

func newAuditKey(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "Print the public key that signs the audit log", Args: exactArgs(),
		Long: `Print the public key that signs the checkpoints of the audit log. Keep it elsewhere than on
the serving machine, and give it to "sallyport audit verify --key" there.`,
	}
	config := configFlag(cmd, s)
	cmd.RunE = func(*cobra.Command, []string) error {
		f, err := loadConfig(*config, s.getenv)
		if err != nil {
			return err
		}
		if f.Audit.SignKey != "" {
			return printAuditKey(s, f)
		}
		text, err := readBounded(filepath.Join(f.DataDir, auditKey+".pub"), 64<<10)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w; \"sallyport serve\" makes it", err)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s", text)
		return nil
	}
	return cmd
}

// printAuditKey prints the public half of a key that lies where the configuration says.
func printAuditKey(s streams, f File) error {
	passphrase, err := keyPassphrase(s, f.CA.PassphraseFile)
	if err != nil {
		return err
	}
	key, err := openAuditKey(f, ca.KeyFolder{Passphrase: passphrase})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s", ssh.MarshalAuthorizedKey(key.PublicKey()))
	return nil
}
