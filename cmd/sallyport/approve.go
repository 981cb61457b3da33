package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sallyport/ca/approval"
)

const approveLong = `Show the acts of administrators that wait for a second person, or decide about one.

An act that [approval] names, such as 'sallyport ca compromise', is proposed by the
first person who asks for it, and done when the command is repeated after another
person has approved it, within approval.within. The approval is for that act alone.

Another person is another account by the admin socket (root, or the service's own),
or somebody whose token has a group of approval.admin_groups: with --with-token the
command asks the service at --url. If no service runs, the command works on the data
folder.`

func newApprove(s streams) *cobra.Command {
	var reject, withToken bool
	cmd := &cobra.Command{
		Use: "approve [PROPOSAL]", Short: "Approve an act that takes two people", GroupID: "admin", Long: approveLong, Args: cobra.MaximumNArgs(1),
		Example: "  sallyport approve\n  sallyport approve 0f3a9c1e5b7d2468",
	}
	config := configFlag(cmd, s)
	form := outputFlag(cmd)
	client := clientFlags(cmd, s)
	cmd.Flags().BoolVar(&reject, "reject", false, "forget the proposal instead")
	cmd.Flags().BoolVar(&withToken, "with-token", false, "decide as the person whose token it is, at the service at --url")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if reject && len(args) == 0 {
			return usageError{errors.New("--reject needs a PROPOSAL; 'sallyport approve' lists them")}
		}
		var desk approvalDesk
		if withToken {
			c, err := client.connect(cmd.Context(), s)
			if err != nil {
				return err
			}
			desk = remoteDesk{c, "/v1/approvals"}
		} else {
			f, err := loadConfig(*config, s.getenv)
			if err != nil {
				return err
			}
			desk = eitherDesk{remoteDesk{adminClient(f), "/v1/admin/approvals"}, f}
		}
		if len(args) == 0 {
			return listProposals(cmd.Context(), s, desk, *form)
		}
		p, err := desk.decide(cmd.Context(), args[0], reject)
		if unknownProposal(err) {
			return fmt.Errorf("no such proposal stands, %q: its time is over, its act was done, or there was none; 'sallyport approve' lists those that stand", args[0])
		}
		if err != nil {
			return err
		}
		if *form == "json" {
			return printJSON(s.out, p)
		}
		done := "approved"
		if reject {
			done = "rejected"
		}
		fmt.Fprintf(s.out, "%s %s: %s, proposed by %s\n", done, p.ID, p.Text, p.ProposedBy)
		if !reject {
			fmt.Fprintf(s.out, "it is done when the command is repeated before %s\n", stamp(p.Until))
		}
		return nil
	}
	return cmd
}

// unknownProposal says whether no such proposal stands, here or at a service.
func unknownProposal(err error) bool {
	p, ok := errors.AsType[*problem](err)
	return errors.Is(err, approval.ErrUnknown) || ok && p.Code == "proposal_unknown"
}

// An approvalDesk is where proposals lie.
type approvalDesk interface {
	list(ctx context.Context) ([]approval.Proposal, error)
	decide(ctx context.Context, id string, reject bool) (approval.Proposal, error)
}

func listProposals(ctx context.Context, s streams, desk approvalDesk, form outputForm) error {
	list, err := desk.list(ctx)
	if err != nil {
		return err
	}
	if form == "json" {
		return printJSON(s.out, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(s.out, "nothing waits for a second person")
		return err
	}
	table := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "PROPOSAL\tUNTIL\tPROPOSED BY\tAPPROVED BY\tACT\tREASON")
	for _, p := range list {
		approved := "-"
		if p.ApprovedBy != nil {
			approved = p.ApprovedBy.String()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", p.ID, stamp(p.Until), p.ProposedBy, approved, p.Text, p.Reason)
	}
	return table.Flush()
}

// A remoteDesk is that of a running service.
type remoteDesk struct {
	c    *client
	path string
}

func (d remoteDesk) list(ctx context.Context) ([]approval.Proposal, error) {
	var answer struct {
		Proposals []approval.Proposal `json:"proposals"`
	}
	err := d.c.call(ctx, http.MethodGet, d.path, nil, &answer)
	return answer.Proposals, err
}

func (d remoteDesk) decide(ctx context.Context, id string, reject bool) (p approval.Proposal, err error) {
	if len(id) != 16 { // before it becomes part of a path
		return p, approval.ErrUnknown
	}
	verb := "/approve"
	if reject {
		verb = "/reject"
	}
	err = d.c.call(ctx, http.MethodPost, d.path+"/"+id+verb, struct{}{}, &p)
	return p, err
}

// An eitherDesk is the running service's, or the data folder's while none runs.
type eitherDesk struct {
	remote remoteDesk
	file   File
}

func (d eitherDesk) list(ctx context.Context) (list []approval.Proposal, err error) {
	list, err = d.remote.list(ctx)
	if errors.Is(err, errNoDaemon) {
		err = d.offline(func(g *approval.Gate) error {
			list, err = g.List(ctx)
			return err
		})
	}
	return list, err
}

func (d eitherDesk) decide(ctx context.Context, id string, reject bool) (p approval.Proposal, err error) {
	p, err = d.remote.decide(ctx, id, reject)
	if errors.Is(err, errNoDaemon) {
		err = d.offline(func(g *approval.Gate) error {
			by := approval.Person{UID: os.Getuid()}
			if reject {
				p, err = g.Reject(ctx, by, id)
			} else {
				p, err = g.Approve(ctx, by, id)
			}
			return err
		})
	}
	return p, err
}

// offline opens store and audit log of the data folder, and needs no key for it.
func (d eitherDesk) offline(use func(*approval.Gate) error) (err error) {
	if err := checkDataDir(d.file.DataDir); err != nil {
		return err
	}
	records, p := &daemon{}, &parts{file: d.file}
	defer func() { err = errors.Join(err, records.close()) }()
	if err := records.openRecords(p); err != nil {
		return err
	}
	gate, err := newGate(d.file, p.db, p.audit, nil) // it approves, and uses no approval
	if err != nil {
		return err
	}
	return use(gate)
}
