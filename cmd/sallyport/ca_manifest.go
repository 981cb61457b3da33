package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"sallyport/ca"
	"sallyport/sshd-config/nodesync"
)

const caManifestLong = `What login nodes fetch is signed by the distribution key. If that key is offline
(ca.distribution.key = "offline"), a person signs each change, revocations too:

  sallyport ca manifest export manifest.json
  ssh-keygen -Y sign -f DISTRIBUTION_KEY -n sallyport-manifest manifest.json   # elsewhere
  sallyport ca manifest import manifest.json manifest.json.sig --reason '…'

Until then nodes get what was signed last. "sallyport ca status" says when a signature
is due.`

func newCAManifest(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "manifest", Short: "Have what nodes fetch signed by a key that is offline", Long: caManifestLong, Args: refuseUnknown,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newManifestExport(s), newManifestImport(s))
	return cmd
}

func newManifestExport(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "export FILE", Short: "Write what is to be signed", Args: exactArgs("FILE"), Long: caManifestLong}
	config := configFlag(cmd, s)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ring, err := openRing(s, *config)
		if err != nil {
			return err
		}
		var answer struct {
			Manifest string `json:"manifest"`
		}
		err = adminClient(ring.file).call(cmd.Context(), http.MethodGet, "/v1/admin/manifest", nil, &answer)
		if errors.Is(err, errNoDaemon) {
			return errors.New("no service runs on this data folder: what is published is known when it does")
		}
		if err != nil {
			return err
		}
		m, err := nodesync.ParseManifest([]byte(answer.Manifest))
		if err != nil {
			return err
		}
		if err := replaceFile(args[0], []byte(answer.Manifest)); err != nil {
			return err
		}
		_, err = fmt.Fprintf(s.out, "%s: version %d, %s, good until %s\nsign it: ssh-keygen -Y sign -f DISTRIBUTION_KEY -n %s %[1]s\n",
			args[0], m.Version, counted(len(m.Keys), "trusted key"), stamp(m.ExpiresAt), nodesync.Namespace)
		return err
	}
	return cmd
}

func newManifestImport(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "import FILE SIGNATURE", Short: "Publish what was signed", Args: exactArgs("FILE", "SIGNATURE"), Long: caManifestLong}
	config := configFlag(cmd, s)
	reason := cmd.Flags().String("reason", "", "why, for the audit log")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkReason(*reason); *reason != "" && err != nil {
			return err
		}
		ring, err := openRing(s, *config)
		if err != nil {
			return err
		}
		text, err := readBounded(args[0], nodesync.MaxManifest)
		if err != nil {
			return err
		}
		signature, err := readBounded(args[1], nodesync.MaxSignature)
		if err != nil {
			return err
		}
		body := map[string]string{"manifest": string(text), "signature": string(signature)}
		if *reason != "" {
			body["reason"] = *reason
		}
		var answer struct {
			Version int64 `json:"version"`
		}
		err = adminClient(ring.file).call(cmd.Context(), http.MethodPost, "/v1/admin/manifest", body, &answer)
		if errors.Is(err, errNoDaemon) {
			return errors.New("no service runs on this data folder: import it when it does")
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(s.out, "manifest %d is published: nodes follow at their next fetch\n", answer.Version)
		return err
	}
	return cmd
}

// noteDue says after a change that the nodes do not get it yet.
func noteDue(ctx context.Context, s streams, f File) {
	if f.CA.Distribution.Key != keyOffline && !ca.IsAgent(f.CA.Distribution.Key) {
		return
	}
	d, err := readDistribution(ctx, f)
	switch {
	case err == nil && d.Due == "" && d.Failure == "":
		return
	case f.CA.Distribution.Key == keyOffline:
		fmt.Fprintln(s.err, "sallyport: LOGIN NODES DO NOT KNOW OF IT YET: the distribution key is offline, and a person must sign: sallyport ca manifest export FILE")
	default:
		fmt.Fprintf(s.err, "sallyport: LOGIN NODES DO NOT KNOW OF IT YET: %s%s\n", d.Due, d.Failure)
	}
}
