package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/sshd-config/nodesync"
)

const nodeCheckLong = `Say what is wrong with login nodes, and what to do about it.

"node check SYSTEM" runs where the service runs and asks every node of a system:
its version, its host key, and, if ca.rotation.probe_login is set, which CA keys
it trusts, whether it refuses a revoked certificate, its clock, how many sessions
it grants on one connection, and how many logins it takes at once.

--refused root tries whether every node refuses a login as root: the CA makes a
certificate for that account that can run nothing but /bin/false, ends after a minute
and never leaves the service. Give it for each account that must never log in.

"node check --local" runs on a node, as root, and sees what the network does not
show: owners and modes, a line at which sshd stops reading, and, with --appliance,
what sshd's configuration means for connections of the service.

Exit code 0 means that nothing is bad; 1 that something is, or that a node could
not be asked. Warnings do not change it.`

// checked is a finding with the node that it is of; empty means this one.
type checked struct {
	Node string `json:"node,omitempty"`
	nodesync.Finding
}

func newNodeCheck(s streams) *cobra.Command {
	var local bool
	var appliance, user, reason string
	var refused []string
	cmd := &cobra.Command{
		Use: "check SYSTEM | --local", Short: "Say what is wrong with login nodes", Long: nodeCheckLong, Args: cobra.MaximumNArgs(1),
		Example: "  sallyport node check daint -o json\n  sallyport node check daint --refused root --refused slurm --reason 'quarterly check'\n  sallyport node check --local --appliance 192.0.2.10",
	}
	config := configFlag(cmd, s)
	opt := nodeFlags(cmd, s)
	form := outputFlag(cmd)
	f := cmd.Flags()
	f.BoolVar(&local, "local", false, "check the node that this runs on")
	f.StringVar(&appliance, "appliance", "", "with --local: address that the service connects from")
	f.StringVar(&user, "user", "nobody", "with --local: account for which sshd's configuration is read")
	f.StringArrayVar(&refused, "refused", nil, "account that every node must refuse; may be repeated")
	f.StringVar(&reason, "reason", "", "with --refused: why, for the audit log")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var list []checked
		var err error
		switch {
		case local && len(refused) > 0:
			return usageError{errors.New("--refused is for a SYSTEM, not for --local")}
		case local == (len(args) == 1):
			return usageError{errors.New("give either a SYSTEM or --local")}
		case local:
			list, err = checkLocal(cmd.Context(), opt, appliance, user)
		default:
			list, err = checkSystem(cmd.Context(), s, *config, args[0], refusals{refused, reason})
		}
		if err != nil {
			return err
		}
		return reportFindings(s, list, *form)
	}
	return cmd
}

// reportFindings prints, and fails if something is bad.
func reportFindings(s streams, list []checked, form outputForm) error {
	bad := 0
	for _, c := range list {
		if c.Verdict == nodesync.Bad {
			bad++
		}
	}
	if form == "json" {
		if err := printJSON(s.out, list); err != nil {
			return err
		}
	} else {
		table := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(table, "VERDICT\tNODE\tCHECK\tDETAIL")
		for _, c := range list {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", c.Verdict, c.Node, c.Check, oneLine(c.Detail))
			if c.Remedy != "" {
				fmt.Fprintf(table, "\t\t\t-> %s\n", c.Remedy)
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if bad > 0 {
		fmt.Fprintf(s.err, "sallyport: %d checks are bad\n", bad)
		return exitError(exitFailure)
	}
	return nil
}

// oneLine keeps what a node or a program said from breaking the table.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}

func checkLocal(ctx context.Context, opt *nodeOptions, appliance, user string) ([]checked, error) {
	dir, err := filepath.Abs(opt.dir) // as sshd's configuration has it
	if err != nil {
		return nil, err
	}
	in := nodesync.Inspection{
		Config:    nodesync.Config{Dir: dir, Signers: opt.signers, SSHD: opt.findSSHD(), SSHDConfig: opt.sshdConfig},
		Appliance: appliance, User: user,
	}
	if in.SSHKeygen, err = exec.LookPath("ssh-keygen"); err != nil {
		return nil, fmt.Errorf("ssh-keygen reads the files, and is not here: %w", err)
	}
	var list []checked
	for _, f := range nodesync.Inspect(ctx, in) {
		list = append(list, checked{Finding: f})
	}
	if opt.connection.url != "" {
		skew, err := opt.serviceSkew(ctx)
		list = append(list, checked{Finding: skewFinding(skew, err)})
	}
	return list, nil
}

// serviceSkew is how far the service's clock is ahead of ours, by the Date of an answer.
func (opt *nodeOptions) serviceSkew(ctx context.Context) (time.Duration, error) {
	source, err := newNodeSource(opt.connection)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source.base+nodesync.ManifestPath, nil)
	if err != nil {
		return 0, err
	}
	resp, err := source.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer closeBody(resp)
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, errors.New("the service's answer has no date")
	}
	return time.Until(date), nil
}

const (
	skewNoticed = 10 * time.Second
	skewBad     = time.Minute // certificates are backdated by as much
)

func skewFinding(skew time.Duration, err error) nodesync.Finding {
	f := nodesync.Finding{Check: "clock", Verdict: nodesync.Good, Detail: fmt.Sprintf("%v apart from the service's", skew.Abs().Round(time.Second))}
	switch {
	case err != nil:
		f.Verdict, f.Detail = nodesync.Unknown, err.Error()
	case skew.Abs() >= skewBad:
		f.Verdict, f.Remedy = nodesync.Bad, "certificates are not valid yet, or no more, for this clock: see chronyc tracking or timedatectl"
	case skew.Abs() >= skewNoticed:
		f.Verdict, f.Remedy = nodesync.Warning, "see chronyc tracking or timedatectl"
	}
	return f
}
