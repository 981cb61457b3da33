package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const certLong = `Get a short-lived SSH certificate for a key of yours.

PUBLIC_KEY is a file such as ~/.ssh/id_ed25519.pub. The certificate is written
beside it, as ~/.ssh/id_ed25519-cert.pub, where ssh(1) finds it by itself; but ssh
offers the plain key first, so for nodes that allow one attempt name it with
-o CertificateFile=. Only the public key leaves this machine.`

type certOptions struct {
	out             string
	ttl             time.Duration
	principals      []string
	sourceAddresses []string
	forceCommand    string
}

// certBody is the request of POST /v1/certificates.
type certBody struct {
	PublicKey     string   `json:"public_key"`
	TTL           string   `json:"ttl,omitempty"`
	Principals    []string `json:"principals,omitempty"`
	SourceAddress string   `json:"source_address,omitempty"` // as in OpenSSH: separated by commas
	ForceCommand  string   `json:"force_command,omitempty"`
}

// certAnswer is the answer of POST /v1/certificates.
type certAnswer struct {
	Certificate   string    `json:"certificate"`
	Serial        string    `json:"serial"`
	KeyID         string    `json:"key_id"`
	Principals    []string  `json:"principals"`
	ValidAfter    time.Time `json:"valid_after"`
	ValidBefore   time.Time `json:"valid_before"`
	CAFingerprint string    `json:"ca_fingerprint"`
}

func newCert(s streams) *cobra.Command {
	var opt certOptions
	cmd := &cobra.Command{
		Use: "cert PUBLIC_KEY", Short: "Get an SSH certificate for your key", GroupID: "use",
		Long: certLong, Args: exactArgs("PUBLIC_KEY"),
		Example: "  sallyport cert ~/.ssh/id_ed25519.pub\n  ssh -o CertificateFile=~/.ssh/id_ed25519-cert.pub login1.example.org",
	}
	client := clientFlags(cmd, s)
	form := outputFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&opt.out, "out", "", `where to write the certificate; "-" is standard output (default: beside the key)`)
	f.DurationVar(&opt.ttl, "ttl", 0, "life of the certificate (default and limit: the service's)")
	f.StringSliceVar(&opt.principals, "principal", nil, "only these of your principals")
	f.StringSliceVar(&opt.sourceAddresses, "source-address", nil, "networks from which the certificate may be used")
	f.StringVar(&opt.forceCommand, "force-command", "", "the only command that the certificate allows")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := opt.check(cmd); err != nil {
			return usageError{err}
		}
		key, err := readPublicKey(args[0])
		if err != nil {
			return err
		}
		c, err := client.connect(cmd.Context(), s)
		if err != nil {
			return err
		}
		body := certBody{PublicKey: key, Principals: opt.principals, SourceAddress: strings.Join(opt.sourceAddresses, ","), ForceCommand: opt.forceCommand}
		if opt.ttl != 0 {
			body.TTL = opt.ttl.String()
		}
		var answer certAnswer
		if err := c.call(cmd.Context(), http.MethodPost, "/v1/certificates", body, &answer); err != nil {
			return err
		}
		return opt.deliver(s, args[0], *form, answer)
	}
	return cmd
}

// check refuses options that are no limit: a certificate without the one that was asked
// for is not what was wanted.
func (opt *certOptions) check(cmd *cobra.Command) error {
	switch {
	case cmd.Flags().Changed("ttl") && opt.ttl <= 0:
		return fmt.Errorf("--ttl: %s is not a positive time", opt.ttl)
	case opt.out != "" && opt.out != "-":
		return checkTarget(opt.out)
	}
	return nil
}

// checkTarget refuses a file that cannot be written, before a certificate is issued for it.
func checkTarget(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("--out: %q is a folder; give the name of a file", path)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return fmt.Errorf("--out: there is no folder %q", filepath.Dir(path))
	}
	return nil
}

// readPublicKey reads a public key, and refuses a private one before it leaves
// the machine.
func readPublicKey(path string) (string, error) {
	text, err := readBounded(path, 64<<10)
	if err != nil {
		return "", err
	}
	if strings.Contains(string(text), "PRIVATE KEY") {
		return "", usageError{fmt.Errorf("%q is a private key; give the public one, %q", path, path+".pub")}
	}
	return strings.TrimSpace(string(text)), nil
}

func (opt *certOptions) deliver(s streams, keyPath string, form outputForm, answer certAnswer) error {
	if opt.out == "-" {
		if form == "json" {
			return printJSON(s.out, answer)
		}
		_, err := fmt.Fprintln(s.out, strings.TrimSpace(answer.Certificate))
		return err
	}
	path := opt.out
	if path == "" {
		path = strings.TrimSuffix(keyPath, ".pub") + "-cert.pub"
	}
	if err := replaceFile(path, []byte(strings.TrimSpace(answer.Certificate)+"\n")); err != nil {
		return err
	}
	if form == "json" {
		return printJSON(s.out, answer)
	}
	_, err := fmt.Fprintf(s.out, "%s: serial %s, principals %s, valid until %s (%s)\n", path, answer.Serial,
		strings.Join(answer.Principals, ", "), answer.ValidBefore.Local().Format("15:04:05 MST"),
		time.Until(answer.ValidBefore).Round(time.Second))
	return err
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
