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
	"syscall"

	"github.com/spf13/cobra"

	"sallyport/ca"
	"sallyport/executor"
	"sallyport/identity"
	"sallyport/store/audit"
)

const checkConfigLong = `Check a configuration file and what it names: keys, passphrase, TLS files, key
files of issuers, known_hosts, and the modes of all of them. Every mistake is
printed at once; those of the file itself with line, key and what is allowed.

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
		f, err := loadConfig(*config, s.getenv)
		if err != nil {
			return err
		}
		err = errors.Join(
			checkDataDir(f.DataDir), checkInputs(*config, f), checkCAKey(s, f), checkTLS(f.Server, log), checkIssuers(f), checkSystems(f, log), checkOpenFGA(f), warnOfHollowRules(f, log), checkStaging(f))
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s: good; issuers: %d, systems: %d\n", *config, len(f.Issuers), len(f.Systems))
		return nil
	}
	return cmd
}

// checkInputs refuses files that decide who may do what and that somebody other
// than root and the service's own user can write or replace.
func checkInputs(config string, f File) error {
	paths := []string{config}
	for _, i := range f.Issuers {
		paths = append(paths, i.JWKSFile)
	}
	for _, y := range f.Systems {
		paths = append(paths, y.KnownHosts...)
	}
	var errs []error
	for _, path := range paths {
		if path != "" {
			errs = append(errs, checkInput(path), checkInput(filepath.Dir(path)))
		}
	}
	return errors.Join(errs...)
}

// checkInput checks a file or folder. That one is missing is for its reader to say.
func checkInput(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	// In a sticky folder such as /tmp only the owner of a file can replace it.
	sticky := info.IsDir() && info.Mode()&fs.ModeSticky != 0
	if info.Mode().Perm()&0o022 != 0 && !sticky {
		return fmt.Errorf("%q can be written by others (mode %04o): chmod go-w %[1]s", path, info.Mode().Perm())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int64(st.Uid) != int64(os.Geteuid()) {
		return fmt.Errorf("%q belongs to uid %d: it must belong to root or to uid %d, which serves", path, st.Uid, os.Geteuid())
	}
	return nil
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
	_, err := loadCAKey(s, f)
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
