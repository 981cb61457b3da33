package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/ca"
)

const revokeLong = `Revoke certificates, a person or a key, at once and durably: they stand in the
revocation list for the login nodes, cached credentials are removed, connections
that are open by them are closed, and commands on these are ended. A person or a
key gets no new certificate until --lift.

The certificates leave the list when they have expired. --lift of a person leaves
those that were revoked in the list; any other --lift takes them out.

Nodes follow when they fetch the list next; until then a certificate that somebody
copied is good for the rest of its life, of minutes. Connections of this service
are closed before the command returns, and the time is printed.

Without a selector, list the revocations that stand. If no service runs, the
command works on the data folder.`

type revokeOptions struct {
	serial, keyID, user, subject, key, issuedBefore string

	reason string
	lift   bool
}

func newRevoke(s streams) *cobra.Command {
	var opt revokeOptions
	cmd := &cobra.Command{
		Use: "revoke", Short: "Revoke certificates, a person or a key", GroupID: "admin", Long: revokeLong, Args: exactArgs(),
		Example: "  sallyport revoke --user alice --reason 'lost laptop, ticket 4711'\n  sallyport revoke --user alice --lift",
	}
	config := configFlag(cmd, s)
	form := outputFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&opt.serial, "serial", "", "the certificate with this serial, in decimal as sshd logs it")
	f.StringVar(&opt.keyID, "key-id", "", "the certificates with this key ID, as sshd logs it")
	f.StringVar(&opt.user, "user", "", "everything of this login")
	f.StringVar(&opt.subject, "subject", "", "everything of this person: ALIAS:SUBJECT, of an issuer and its tokens")
	f.StringVar(&opt.key, "key", "", "everything of this public key: a file, a line, or a fingerprint (SHA256:...)")
	f.StringVar(&opt.issuedBefore, "issued-before", "", `all certificates issued before this time (2026-01-31T08:00:00Z), or "now"`)
	f.StringVar(&opt.reason, "reason", "", "why, for the audit log")
	f.BoolVar(&opt.lift, "lift", false, "end the revocation instead")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		began := time.Now()
		file, err := loadConfig(*config, s.getenv)
		if err != nil {
			return err
		}
		if !file.CA.Enabled {
			return errors.New("ca.enabled is false: revoke where the CA is")
		}
		if !opt.selects() {
			return listRevocations(cmd.Context(), s, file, *form)
		}
		revocation, err := opt.revocation()
		if err == nil && !opt.lift {
			err = knownIssuer(file, revocation)
		}
		if err != nil {
			return usageError{err}
		}
		if opt.lift {
			return opt.runLift(cmd.Context(), s, file, revocation, *form)
		}
		return opt.runRevoke(cmd.Context(), s, file, revocation, *form, began)
	}
	return cmd
}

// knownIssuer refuses the subject of an issuer that there is not: a typing error must
// not look like a revocation.
func knownIssuer(f File, r ca.Revocation) error {
	if r.Kind != ca.RevokeSubject {
		return nil
	}
	alias, _, _ := strings.Cut(r.Value, ":")
	var known []string
	for _, i := range f.Issuers {
		if i.Alias == alias {
			return nil
		}
		known = append(known, i.Alias)
	}
	return fmt.Errorf("--subject: there is no issuer %q; the configuration has %s", alias, strings.Join(known, ", "))
}

// chosen are the selectors that were given.
func (opt revokeOptions) chosen() map[ca.RevocationKind]string {
	chosen := map[ca.RevocationKind]string{
		ca.RevokeSerial: opt.serial, ca.RevokeKeyID: opt.keyID, ca.RevokeUser: opt.user,
		ca.RevokeSubject: opt.subject, ca.RevokeKey: opt.key, ca.RevokeIssuedBefore: opt.issuedBefore,
	}
	for kind, value := range chosen {
		if value == "" {
			delete(chosen, kind)
		}
	}
	return chosen
}

func (opt revokeOptions) selects() bool { return len(opt.chosen()) > 0 || opt.lift }

// revocation checks that there is one selector, and what it says.
func (opt revokeOptions) revocation() (ca.Revocation, error) {
	chosen := opt.chosen()
	if len(chosen) != 1 {
		return ca.Revocation{}, errors.New("give one of --serial, --key-id, --user, --subject, --key and --issued-before")
	}
	if opt.issuedBefore == "now" {
		chosen[ca.RevokeIssuedBefore] = time.Now().Format(time.RFC3339Nano)
	}
	if opt.key != "" && !strings.HasPrefix(opt.key, "SHA256:") {
		text, err := readBounded(opt.key, 64<<10)
		if err == nil {
			chosen[ca.RevokeKey] = strings.TrimSpace(string(text))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return ca.Revocation{}, fmt.Errorf("--key: %w", err)
		}
	}
	for kind, value := range chosen {
		r, err := ca.NewRevocation(kind, value)
		if refused, ok := errors.AsType[*ca.RequestError](err); ok {
			err = fmt.Errorf("--%s: %s", strings.ReplaceAll(refused.Field, "_", "-"), refused.Detail)
		}
		return r, err
	}
	return ca.Revocation{}, nil // not reached: there is one
}

// revokeAnswer is what the service tells of a revocation.
type revokeAnswer struct {
	ca.Revoked
	Connections int     `json:"connections"`
	CutMS       float64 `json:"cut_ms"`
	// TotalMS is the time from the start of the command to the answer, which comes
	// after the last connection is closed.
	TotalMS float64 `json:"total_ms"`
	Service bool    `json:"service"`
}

// revokeRequest is the body of both calls.
func (opt revokeOptions) revokeRequest(r ca.Revocation) map[string]string {
	body := map[string]string{"kind": string(r.Kind), "value": r.Value}
	if opt.reason != "" {
		body["reason"] = opt.reason
	}
	return body
}

func (opt revokeOptions) actor() ca.Actor { return ca.Actor{UID: os.Getuid(), Reason: opt.reason} }

func (opt revokeOptions) runRevoke(ctx context.Context, s streams, f File, r ca.Revocation, form outputForm, began time.Time) error {
	answer := revokeAnswer{Service: true}
	err := adminClient(f).call(ctx, http.MethodPost, "/v1/admin/revocations", opt.revokeRequest(r), &answer)
	if errors.Is(err, errNoDaemon) {
		answer.Service = false
		err = offline(s, f, func(a *ca.Authority) error {
			answer.Revoked, err = a.Revoke(ctx, opt.actor(), r, nil)
			return err
		})
	}
	if err != nil {
		return err
	}
	answer.TotalMS = float64(time.Since(began).Microseconds()) / 1000
	if form == "json" {
		return printJSON(s.out, answer)
	}
	fmt.Fprintf(s.out, "revoked %s %s: %s still valid, revocation list %d\n",
		answer.Kind, answer.Value, counted(answer.Certificates, "certificate"), answer.ListVersion)
	if answer.Certificates == 0 {
		fmt.Fprintln(s.out, "nothing in the ledger matches now: if that is unexpected, check the spelling; it holds for what comes")
	}
	if answer.Service {
		fmt.Fprintf(s.out, "closed %s; the last one %.0f ms after the command\n", counted(answer.Connections, "connection"), answer.TotalMS)
	} else {
		fmt.Fprintln(s.out, "no service runs here: there were no connections to close")
	}
	if answer.Expires.IsZero() {
		fmt.Fprintln(s.out, "it stands until it is lifted: sallyport revoke --lift")
	} else {
		fmt.Fprintf(s.out, "it leaves the list by itself at %s\n", stamp(answer.Expires))
	}
	return nil
}

func (opt revokeOptions) runLift(ctx context.Context, s streams, f File, r ca.Revocation, form outputForm) error {
	var done ca.Revoked
	err := adminClient(f).call(ctx, http.MethodPost, "/v1/admin/revocations/lift", opt.revokeRequest(r), &done)
	if errors.Is(err, errNoDaemon) {
		err = offline(s, f, func(a *ca.Authority) error {
			done, err = a.Lift(ctx, opt.actor(), r)
			return err
		})
	}
	if err != nil {
		return err
	}
	if form == "json" {
		return printJSON(s.out, done)
	}
	_, err = fmt.Fprintf(s.out, "lifted %s %s: revocation list %d\n", done.Kind, done.Value, done.ListVersion)
	return err
}

func listRevocations(ctx context.Context, s streams, f File, form outputForm) error {
	var answer struct {
		Revocations []ca.Revocation `json:"revocations"`
	}
	err := adminClient(f).call(ctx, http.MethodGet, "/v1/admin/revocations", nil, &answer)
	if errors.Is(err, errNoDaemon) {
		err = offline(s, f, func(a *ca.Authority) error {
			answer.Revocations, err = a.Revocations(ctx)
			return err
		})
	}
	if err != nil {
		return err
	}
	if form == "json" {
		return printJSON(s.out, answer.Revocations)
	}
	if len(answer.Revocations) == 0 {
		_, err := fmt.Fprintln(s.out, "no revocation stands")
		return err
	}
	table := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "SINCE\tUNTIL\tKIND\tVALUE\tUID\tREASON")
	for _, r := range answer.Revocations {
		until := "it is lifted"
		if !r.Expires.IsZero() {
			until = stamp(r.Expires)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", stamp(r.At), until, r.Kind, r.Value, r.UID, r.Reason)
	}
	return table.Flush()
}
