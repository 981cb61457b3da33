package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/ca"
	"sallyport/httpapi"
)

const caLong = `Look at the certificate authority, and lead its keys through their lives: stage,
publish, activate, retire; 'ca rotate' does it all. The commands ask the running service over its
admin socket, or read the data folder if no service runs.`

func newCA(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ca", Short: "Look at the certificate authority and change its keys", GroupID: "admin", Long: caLong, Args: refuseUnknown,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCAList(s), newCAExport(s), newCACertificates(s), newCAManifest(s))
	cmd.AddCommand(newCASteps(s)...)
	return cmd
}

// caStatus is what the service tells of its CA.
type caStatus struct {
	Keys              []caKey `json:"keys"`
	TrustedUserCAKeys string  `json:"trusted_user_ca_keys"`
}

type caKey struct {
	State       string `json:"state"`
	Algorithm   string `json:"algorithm"`
	Fingerprint string `json:"fingerprint"`
}

func statusOf(a *ca.Authority) caStatus {
	status := caStatus{TrustedUserCAKeys: string(a.TrustBundle())}
	for _, k := range a.Keys() {
		status.Keys = append(status.Keys, caKey{State: string(k.State), Algorithm: k.Algorithm, Fingerprint: k.Fingerprint})
	}
	return status
}

func newCAList(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the CA's keys", Args: exactArgs()}
	config := configFlag(cmd, s)
	form := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		status, err := readCAStatus(cmd.Context(), s, *config)
		if err != nil {
			return err
		}
		if *form == "json" {
			return printJSON(s.out, status.Keys)
		}
		table := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(table, "STATE\tALGORITHM\tFINGERPRINT")
		for _, k := range status.Keys {
			fmt.Fprintf(table, "%s\t%s\t%s\n", k.State, k.Algorithm, k.Fingerprint)
		}
		return table.Flush()
	}
	return cmd
}

func newCAExport(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "export", Short: "Print what the nodes' TrustedUserCAKeys file must hold", Args: exactArgs(),
	}
	config := configFlag(cmd, s)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		status, err := readCAStatus(cmd.Context(), s, *config)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(s.out, status.TrustedUserCAKeys)
		return err
	}
	return cmd
}

// readCAStatus asks the service, or else loads the key.
func readCAStatus(ctx context.Context, s streams, config string) (caStatus, error) {
	f, err := loadConfig(config, s.getenv)
	if err != nil {
		return caStatus{}, err
	}
	if !f.CA.Enabled {
		return caStatus{}, errors.New("ca.enabled is false: this service has no CA")
	}
	var answer struct {
		Parts struct {
			CA caStatus `json:"ca"`
		} `json:"parts"`
	}
	err = adminClient(f).call(ctx, http.MethodGet, "/v1/admin/status", nil, &answer)
	if !errors.Is(err, errNoDaemon) {
		return answer.Parts.CA, err
	}
	var status caStatus
	err = offline(s, f, func(a *ca.Authority) error {
		status = statusOf(a)
		return nil
	})
	return status, err
}

type certificatesOptions struct {
	login string
	valid bool
	limit int
}

func newCACertificates(s streams) *cobra.Command {
	var opt certificatesOptions
	cmd := &cobra.Command{
		Use: "certificates [SERIAL]", Short: "List issued certificates from the ledger", Args: cobra.MaximumNArgs(1),
		Long: "List the certificates of the ledger, the newest last; or show the one with SERIAL, as sshd logs it.",
	}
	config := configFlag(cmd, s)
	form := outputFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&opt.login, "login", "", "only those of this login")
	f.BoolVar(&opt.valid, "valid", false, "only those that have not expired")
	f.IntVar(&opt.limit, "limit", 1000, "at most this many, from 1 to 10000")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file, err := loadConfig(*config, s.getenv)
		if err != nil {
			return err
		}
		rows, more, err := opt.read(cmd.Context(), s, file, args)
		if err != nil {
			return err
		}
		slices.SortFunc(rows, func(a, b ca.Issued) int { return a.IssuedAt.Compare(b.IssuedAt) })
		if *form == "json" {
			return printJSON(s.out, rows)
		}
		if more {
			fmt.Fprintf(s.err, "sallyport: note: there are more than %d; see --limit\n", opt.limit)
		}
		return printLedger(s, rows)
	}
	return cmd
}

func printLedger(s streams, rows []ca.Issued) error {
	table := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "ISSUED\tVALID BEFORE\tPROFILE\tPRINCIPALS\tSERIAL\tKEY ID")
	for _, r := range rows {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", r.IssuedAt.Local().Format("2006-01-02 15:04:05 MST"), r.ValidBefore.Local().Format("15:04:05 MST"),
			r.Profile, strings.Join(r.Principals, ","), r.Serial, r.KeyID)
	}
	return table.Flush()
}

func (opt certificatesOptions) read(ctx context.Context, s streams, f File, args []string) (rows []ca.Issued, more bool, err error) {
	if opt.limit < 1 || opt.limit > 10000 {
		return nil, false, usageError{fmt.Errorf("--limit: %d is not from 1 to 10000", opt.limit)}
	}
	if len(args) == 1 {
		rows, err = readOne(ctx, s, f, args[0])
		return rows, false, err
	}
	query := url.Values{"limit": {strconv.Itoa(opt.limit)}}
	if opt.login != "" {
		query.Set("login", opt.login)
	}
	if opt.valid {
		query.Set("valid", "true")
	}
	var answer struct {
		Certificates []ca.Issued `json:"certificates"`
		More         bool        `json:"more"`
	}
	err = adminClient(f).call(ctx, http.MethodGet, "/v1/admin/certificates?"+query.Encode(), nil, &answer)
	if !errors.Is(err, errNoDaemon) {
		return answer.Certificates, answer.More, err
	}
	err = offline(s, f, func(a *ca.Authority) error {
		for row, err := range a.Ledger(ctx) {
			if err != nil {
				return err
			}
			if (opt.login != "" && row.Login != opt.login) || (opt.valid && time.Now().After(row.ValidBefore)) {
				continue
			}
			if more = len(rows) == opt.limit; more {
				return nil
			}
			rows = append(rows, row)
		}
		return nil
	})
	return rows, more, err
}

func readOne(ctx context.Context, s streams, f File, text string) ([]ca.Issued, error) {
	serial, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil, usageError{fmt.Errorf("%q is no serial: a decimal number, as sshd logs it", text)}
	}
	var row ca.Issued
	err = adminClient(f).call(ctx, http.MethodGet, "/v1/admin/certificates/"+text, nil, &row)
	if errors.Is(err, errNoDaemon) {
		err = offline(s, f, func(a *ca.Authority) error {
			row, err = a.Lookup(ctx, serial)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return []ca.Issued{row}, nil
}

// errNoDaemon says that nobody listens on the admin socket.
var errNoDaemon = errors.New("no service runs on this data folder")

// adminClient speaks to the admin socket of the service that f describes.
func adminClient(f File) *client {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return &client{base: "http://admin", http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "unix", f.Server.AdminSocket)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
				return nil, errNoDaemon
			}
			if errors.Is(err, fs.ErrPermission) {
				return nil, fmt.Errorf("the admin socket is for root and the service's own user: %w", err)
			}
			return conn, err
		},
	}}}
}

// offline opens the data folder, which no daemon uses, and hands use its CA.
func offline(s streams, f File, use func(*ca.Authority) error) error {
	if err := checkDataDir(f.DataDir); err != nil {
		return err
	}
	keys, err := loadCAKey(s, f)
	if err != nil {
		return err
	}
	return withKeys(f, keys, use)
}

// withKeys is offline for somebody who has loaded the keys.
func withKeys(f File, keys caKeys, use func(*ca.Authority) error) (err error) {
	d, p := &daemon{}, &parts{file: f, keys: keys}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.openRecords(p); err != nil {
		return err
	}
	if err := d.openRegister(p); err != nil {
		return err
	}
	authority, err := ca.New(caConfig(f, p))
	if err != nil {
		return err
	}
	return use(authority)
}

// offlineRevoker is offline for revocations, which need no CA if there is none.
func offlineRevoker(s streams, f File, use func(httpapi.Revoker) error) (err error) {
	if f.CA.Enabled {
		return offline(s, f, func(a *ca.Authority) error { return use(a) })
	}
	if err := checkDataDir(f.DataDir); err != nil {
		return err
	}
	d, p := &daemon{}, &parts{file: f}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.openRecords(p); err != nil {
		return err
	}
	if err := d.openRegister(p); err != nil {
		return err
	}
	return use(lifts{p.revoked, p.gate})
}
