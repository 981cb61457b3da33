package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/ca/krl"
)

const krlLong = `Show the revocation list for the login nodes, or write it to a file. The service
serves the same bytes at /v1/ca/revoked-keys; "ssh-keygen -Q -l -f FILE" shows
them too. A list that revokes nobody still holds one key, the canary: a node that
accepts it does not check the list.`

func newKRL(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "krl", Short: "Show or write the revocation list", GroupID: "admin", Long: krlLong, Args: exactArgs()}
	config := configFlag(cmd, s)
	out := cmd.Flags().String("out", "", `write the list to this file; "-" is standard output`)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, err := loadConfig(*config, s.getenv)
		if err != nil {
			return err
		}
		if !f.CA.Enabled {
			return errors.New("ca.enabled is false: this service has no CA")
		}
		data, err := readKRL(cmd.Context(), s, f)
		if err != nil {
			return err
		}
		list, err := krl.Parse(data)
		switch {
		case err != nil:
			return err
		case *out == "-":
			_, err := s.out.Write(data)
			return err
		case *out != "":
			return replaceFile(*out, data)
		}
		return printKRL(s.out, list)
	}
	return cmd
}

func readKRL(ctx context.Context, s streams, f File) (data []byte, err error) {
	resp, err := adminClient(f).send(ctx, http.MethodGet, "/v1/admin/revoked-keys", nil, "application/octet-stream")
	if errors.Is(err, errNoDaemon) {
		err = offline(s, f, func(a *ca.Authority) error {
			data = a.RevocationList()
			return nil
		})
		return data, err
	}
	if err != nil {
		return nil, err
	}
	defer closeBody(resp)
	return io.ReadAll(io.LimitReader(resp.Body, krl.MaxBytes+1))
}

// printKRL shows a list in the manner of ssh-keygen -Q -l.
func printKRL(w io.Writer, l *krl.List) error {
	fmt.Fprintf(w, "version    %d\ngenerated  %s\n", l.Version, stamp(l.Generated))
	for _, c := range l.Certificates {
		by := "any CA"
		if c.CA != nil {
			by = "CA " + ssh.FingerprintSHA256(c.CA)
		}
		for _, r := range c.Serials {
			if r == ca.MarkersUpTo(l.Version) {
				fmt.Fprintf(w, "markers    of this and earlier versions, of %s\n", by)
				continue
			}
			if r.First == r.Last {
				fmt.Fprintf(w, "serial     %d of %s\n", r.First, by)
				continue
			}
			fmt.Fprintf(w, "serials    %d-%d of %s\n", r.First, r.Last, by)
		}
		for _, id := range c.KeyIDs {
			fmt.Fprintf(w, "key ID     %q of %s\n", id, by)
		}
	}
	for _, k := range l.Keys {
		fmt.Fprintf(w, "key        %s %s\n", k.Type(), ssh.FingerprintSHA256(k))
	}
	for _, h := range l.SHA256 {
		fmt.Fprintf(w, "key hash   SHA256:%s\n", base64.RawStdEncoding.EncodeToString(h[:]))
	}
	return nil
}
