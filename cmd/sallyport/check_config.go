package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sallyport/ca"
	"sallyport/executor"
	"sallyport/identity"
	"sallyport/store/audit"
)

const checkConfigLong = `Check a configuration file and what it names: keys, passphrase, TLS files, key
files of issuers, known_hosts, and the modes of all of them. Every mistake is
printed at once, with line, key and what is allowed. What is allowed and should
not be is a warning, and serve logs it at each start; docs/trust.md lists both.

No network is used and nothing is written. Run it as the user that will serve.`

func newCheckConfig(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "check-config", Short: "Check a configuration file and what it names", GroupID: "service",
		Args: exactArgs(), Long: checkConfigLong,
	}
	config := configFlag(cmd, s)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log := slog.New(noteHandler{s})
		if err := warnOfUnknownVariables(cmd.Context(), log, s.environ); err != nil {
			return err
		}
		f, d, err := readConfig(*config, s.getenv)
		if err != nil {
			return err
		}
		files := d.checkFiles(&f)
		if d.pipes {
			return files
		}
		err = errors.Join(
			checkDataDir(f.DataDir), files, checkCAKey(s, f), checkTLS(f.Server, log), checkIssuers(f), checkSystems(f, log), checkOpenFGA(f), warnOfHollowRules(f, log), checkStaging(f), checkAuditFiles(f.Audit))
		for _, w := range d.warnings {
			fmt.Fprintf(s.err, "sallyport: warning: %s\n", w.in(*config))
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s: good; issuers: %d, systems: %d\n", *config, len(f.Issuers), len(f.Systems))
		return nil
	}
	return cmd
}

// checkCAKey opens the key unless only a terminal could give its passphrase.
func checkCAKey(s streams, f File) error {
	if !f.CA.Enabled {
		return nil
	}
	s.in = nil // nobody is asked
	if _, err := keyPassphrase(s, f.CA.PassphraseFile); err != nil {
		// What is wrong with the passphrase must not hide that there is no key.
		if _, missing := os.Stat(f.CA.Key); errors.Is(missing, fs.ErrNotExist) && !ca.IsAgent(f.CA.Key) {
			err = errors.Join(err, fmt.Errorf("ca.key: %w", missing))
		}
		return err
	}
	keys, err := loadCAKey(s, f)
	if err == nil && f.CA.Distribution.Key != filepath.Join(f.DataDir, distributionKey) {
		err = checkDistributionKey(f, keys)
	}
	if errors.Is(err, errNoTerminal) {
		fmt.Fprintln(s.err, "sallyport: note: the CA key is encrypted and no passphrase is configured: serve asks the terminal for it")
		return nil
	}
	return err
}

func checkTLS(s ServerSection, log *slog.Logger) error {
	if s.TLSCertificate == "" {
		return nil
	}
	return (&certificateFiles{certPath: s.TLSCertificate, keyPath: s.TLSKey, log: log}).load()
}

func checkIssuers(f File) error {
	cfg := identityConfig(f, slog.New(slog.DiscardHandler))
	cfg.HTTPClient = &http.Client{Transport: nobody{}}
	v, err := identity.New(cfg)
	if err != nil {
		return err
	}
	return v.Close()
}

// checkSystems lets the executor read everything that it needs of systems and
// static keys.
func checkSystems(f File, log *slog.Logger) (err error) {
	if !f.Executor.Enabled {
		return nil
	}
	var provider executor.CredentialProvider = nobody{}
	if f.Executor.Credentials != "builtin" {
		var d daemon
		defer func() { err = errors.Join(err, d.close()) }()
		if provider, err = d.credentials(&parts{file: f, log: log}); err != nil {
			return err
		}
	}
	cfg := executorConfig(&parts{file: f, log: log}, provider)
	cfg.Audit = nobody{}
	e, err := executor.New(cfg)
	if err != nil {
		return err
	}
	return e.Close(context.Background())
}

// nobody stands in for what a check does not use.
type nobody struct{}

func (nobody) Credential(context.Context, identity.Identity, executor.Node) (executor.Credential, error) {
	return executor.Credential{}, executor.ErrNoCredential
}

func (nobody) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("a check uses no network")
}

func (nobody) Record(context.Context, audit.Event) error { return audit.ErrUnavailable }

// noteHandler prints warnings as notes.
type noteHandler struct{ s streams }

func (noteHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (h noteHandler) WithAttrs([]slog.Attr) slog.Handler         { return h }
func (h noteHandler) WithGroup(string) slog.Handler              { return h }

func (h noteHandler) Handle(_ context.Context, r slog.Record) error {
	fmt.Fprintf(h.s.err, "sallyport: note: %s", r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(h.s.err, ", %s %s", a.Key, a.Value)
		return true
	})
	_, err := fmt.Fprintln(h.s.err)
	return err
}
