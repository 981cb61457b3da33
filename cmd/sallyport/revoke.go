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
	"sallyport/ca/revocation"
	"sallyport/httpapi"
)

const revokeLong = `Revoke a person, an account, a key or certificates, at once and durably. A person or
an account is refused by every call of this service until --lift, whatever
credentials it logs in with; connections that are open are closed, and commands on
these are ended. With a CA, what it has issued stands in the revocation list for the
login nodes, cached credentials are removed, and nothing new is issued.

--user is an account, whoever uses it, and wherever it stands: as login, as the
account of a static key, as any principal of a certificate. --subject is a person,
whatever the account: ALIAS:SUBJECT or URL#SUBJECT. What stands is the issuer's URL,
so that no change of an alias moves it to somebody else.

The certificates leave the list when they have expired. --lift of a person or an
account leaves those that were revoked in the list; any other --lift takes them out.

Connections of this service are closed before the command returns, and the time is
printed. So is what it could not reach: nodes follow when they fetch the list next,
and until then a certificate that somebody copied is good there.

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
		Use: "revoke", Short: "Revoke a person, an account, a key or certificates", GroupID: "admin", Long: revokeLong, Args: exactArgs(),
		Example: "  sallyport revoke --user alice --reason 'lost laptop, ticket 4711'\n  sallyport revoke --user alice --lift",
	}
	config := configFlag(cmd, s)
	form := outputFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&opt.serial, "serial", "", "the certificate with this serial, in decimal as sshd logs it")
	f.StringVar(&opt.keyID, "key-id", "", "the certificates with this key ID, as sshd logs it")
	f.StringVar(&opt.user, "user", "", "everything of this account, as login or principal")
	f.StringVar(&opt.subject, "subject", "", "everything of this person: ALIAS:SUBJECT or URL#SUBJECT, of an issuer and its tokens")
	f.StringVar(&opt.key, "key", "", "everything of this public key: a file, a line, or a fingerprint (SHA256:...)")
	f.StringVar(&opt.issuedBefore, "issued-before", "", `all certificates issued before this time (2026-01-31T08:00:00Z), or "now"`)
	f.StringVar(&opt.reason, "reason", "", "why, for the audit log")
	f.BoolVar(&opt.lift, "lift", false, "end the revocation instead")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		began := time.Now()
		if opt.acts() && len(opt.chosen()) != 1 {
			return usageError{errors.New("give one of --serial, --key-id, --user, --subject, --key and --issued-before")}
		}
		file, err := loadConfig(*config, s.getenv)
		if err != nil {
			return err
		}
		if !opt.acts() {
			return listRevocations(cmd.Context(), s, file, *form)
		}
		act, err := opt.act(issuersOf(file))
		if err != nil {
			return usageError{err}
		}
		if opt.lift {
			return opt.runLift(cmd.Context(), s, file, act, *form)
		}
		return opt.runRevoke(cmd.Context(), s, file, act, *form, began)
	}
	return cmd
}

// chosen are the selectors that were given.
func (opt revokeOptions) chosen() map[revocation.Kind]string {
	chosen := map[revocation.Kind]string{
		revocation.Serial: opt.serial, revocation.KeyID: opt.keyID, revocation.User: opt.user,
		revocation.Subject: opt.subject, revocation.Key: opt.key, revocation.IssuedBefore: opt.issuedBefore,
	}
	for kind, value := range chosen {
		if value == "" {
			delete(chosen, kind)
		}
	}
	return chosen
}

// acts says whether something is to be done: a reason is given for an act, not for a list.
func (opt revokeOptions) acts() bool { return len(opt.chosen()) > 0 || opt.lift || opt.reason != "" }

// act is what the one selector says. What is lifted may have a
// name that nothing new could have.
func (opt revokeOptions) act(issuers revocation.Issuers) (revocation.Act, error) {
	chosen := opt.chosen()
	if opt.issuedBefore == "now" {
		chosen[revocation.IssuedBefore] = time.Now().Format(time.RFC3339Nano)
	}
	if opt.key != "" && !strings.HasPrefix(opt.key, "SHA256:") {
		text, err := readBounded(opt.key, 64<<10)
		if err == nil {
			chosen[revocation.Key] = strings.TrimSpace(string(text))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return revocation.Act{}, fmt.Errorf("--key: %w", err)
		}
	}
	for kind, value := range chosen {
		act, err := revocation.New(kind, value, issuers)
		if wrong, ok := errors.AsType[*revocation.Error](err); ok && opt.lift && kind == revocation.Subject {
			return revocation.Act{Kind: kind, Value: value}, nil
		} else if ok {
			err = fmt.Errorf("--%s: %s", strings.ReplaceAll(wrong.Field, "_", "-"), wrong.Detail)
		}
		return act, err
	}
	return revocation.Act{}, nil // not reached: there is one
}

// revokeAnswer is what the service tells of a revocation.
type revokeAnswer struct {
	revocation.Done
	Connections int     `json:"connections"`
	CutMS       float64 `json:"cut_ms"`
	// TotalMS is the time from the start of the command to the answer, which comes
	// after the last connection is closed.
	TotalMS float64 `json:"total_ms"`
	Service bool    `json:"service"`
	// Unreached says where access may go on.
	Unreached []string `json:"unreached"`
}

// revokeRequest is the body of both calls.
func (opt revokeOptions) revokeRequest(r revocation.Act) map[string]string {
	body := map[string]string{"kind": string(r.Kind), "value": r.Value}
	if opt.reason != "" {
		body["reason"] = opt.reason
	}
	return body
}

func (opt revokeOptions) actor() ca.Actor { return ca.Actor{UID: os.Getuid(), Reason: opt.reason} }

func (opt revokeOptions) runRevoke(ctx context.Context, s streams, f File, r revocation.Act, form outputForm, began time.Time) error {
	answer := revokeAnswer{Service: true}
	err := adminClient(f).call(ctx, http.MethodPost, "/v1/admin/revocations", opt.revokeRequest(r), &answer)
	if errors.Is(err, errNoDaemon) {
		answer.Service, answer.Unreached = false, unreached(f)(r)
		err = offlineRevoker(s, f, func(a httpapi.Revoker) error {
			answer.Done, err = a.Revoke(ctx, opt.actor(), r, nil)
			return err
		})
	}
	if err != nil {
		return err
	}
	answer.TotalMS = float64(time.Since(began).Microseconds()) / 1000
	noteDue(ctx, s, f)
	if form == "json" {
		return printJSON(s.out, answer)
	}
	answer.print(s)
	return nil
}

// print says what was reached, and what was not.
func (a revokeAnswer) print(s streams) {
	if a.ListVersion == 0 {
		fmt.Fprintf(s.out, "revoked %s %s: refused by every call of this service\n", a.Kind, a.Value)
	} else {
		fmt.Fprintf(s.out, "revoked %s %s: %s still valid, revocation list %d\n", a.Kind, a.Value, counted(a.Certificates, "certificate"), a.ListVersion)
	}
	if a.Certificates == 0 && a.ListVersion > 0 {
		fmt.Fprintln(s.out, "nothing in the ledger matches now: if that is unexpected, check the spelling; it holds for what comes")
	}
	if a.Service {
		fmt.Fprintf(s.out, "closed %s; the last one %.0f ms after the command\n", counted(a.Connections, "connection"), a.TotalMS)
	} else {
		fmt.Fprintln(s.out, "no service runs here: there were no connections to close")
	}
	if a.Expires.IsZero() {
		fmt.Fprintln(s.out, "it stands until it is lifted: sallyport revoke --lift")
	} else {
		fmt.Fprintf(s.out, "it leaves the list by itself at %s\n", stamp(a.Expires))
	}
	for _, sentence := range a.Unreached {
		fmt.Fprintf(s.out, "not reached: %s\n", sentence)
	}
}

func (opt revokeOptions) runLift(ctx context.Context, s streams, f File, r revocation.Act, form outputForm) error {
	var done revocation.Done
	err := adminClient(f).call(ctx, http.MethodPost, "/v1/admin/revocations/lift", opt.revokeRequest(r), &done)
	if errors.Is(err, errNoDaemon) {
		err = offlineRevoker(s, f, func(a httpapi.Revoker) error {
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
	text := fmt.Sprintf("lifted %s %s", done.Kind, done.Value)
	if done.ListVersion > 0 {
		text += fmt.Sprintf(": revocation list %d", done.ListVersion)
	}
	_, err = fmt.Fprintln(s.out, text)
	return err
}

func listRevocations(ctx context.Context, s streams, f File, form outputForm) error {
	var answer struct {
		Revocations []revocation.Act `json:"revocations"`
	}
	err := adminClient(f).call(ctx, http.MethodGet, "/v1/admin/revocations", nil, &answer)
	if errors.Is(err, errNoDaemon) {
		err = offlineRevoker(s, f, func(a httpapi.Revoker) error {
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
