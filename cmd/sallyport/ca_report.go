package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/ca"
)

func newCAStatus(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show keys, nodes and the next step", Args: exactArgs()}
	config := configFlag(cmd, s)
	form := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ring, err := openRing(s, *config)
		if err != nil {
			return err
		}
		status, err := ring.RingStatus(cmd.Context())
		if err != nil {
			return err
		}
		manifest, err := readDistribution(cmd.Context(), ring.file)
		if err != nil {
			return err
		}
		if *form == "json" {
			return printJSON(s.out, struct {
				ca.RingStatus
				Distribution distributionStatus `json:"distribution"`
			}{status, manifest})
		}
		return printStatus(s, status, manifest)
	}
	return cmd
}

func printStatus(s streams, status ca.RingStatus, manifest distributionStatus) error {
	fmt.Fprintf(s.out, "bundle %d of %s, revocation list %d, generation %d\n",
		status.Version, stamp(status.PublishedAt), status.RevocationVersion, status.Generation)
	if err := printDistribution(s, manifest); err != nil {
		return err
	}
	fmt.Fprintln(s.out)
	if err := printKeys(s, status); err != nil {
		return err
	}
	fmt.Fprintln(s.out)
	if err := printNodes(s, status); err != nil {
		return err
	}
	fmt.Fprintln(s.out)
	return printNext(s, status)
}

// maxEnded is how many keys of the past one screen shows.
const maxEnded = 5

func printKeys(s streams, status ca.RingStatus) error {
	table := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "STATE\tFINGERPRINT\tAGE\tIN BUNDLE\tVALID CERTIFICATES\tUNTIL")
	keys := slices.Clone(status.Keys)
	order := []ca.KeyState{ca.KeyActive, ca.KeyRetiring, ca.KeyPending, ca.KeyStaged, ca.KeyStandby, ca.KeyCompromised, ca.KeyRetired}
	slices.SortStableFunc(keys, func(a, b ca.KeyStatus) int {
		return cmp.Or(slices.Index(order, a.State)-slices.Index(order, b.State), b.StagedAt.Compare(a.StagedAt))
	})
	ended := 0
	for _, k := range keys {
		if k.State == ca.KeyRetired || k.State == ca.KeyCompromised {
			if ended++; ended > maxEnded {
				continue
			}
		}
		until := "-"
		if k.Valid > 0 {
			until = stamp(k.ValidBefore)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", k.State, k.Fingerprint, age(k.StagedAt), yesNo(k.Published), k.Valid, until)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if ended > maxEnded {
		fmt.Fprintf(s.out, "and %d more of the past; see -o json\n", ended-maxEnded)
	}
	return nil
}

func printNodes(s streams, status ca.RingStatus) error {
	if len(status.Nodes) == 0 {
		fmt.Fprintln(s.out, "no nodes are known")
		return nil
	}
	table := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "SYSTEM\tNODE\tPROBED\tBUNDLE\tREVOCATION LIST\tCLOCK\tKEYS")
	for _, n := range status.Nodes {
		probed, bundle, clock := "never", "-", "-"
		if !n.At.IsZero() {
			probed = age(n.At) + " ago"
		}
		if n.BundleSeen > 0 {
			bundle = fmt.Sprint(n.BundleSeen)
		}
		if n.SkewSeconds != nil {
			clock = fmt.Sprintf("%+.1fs", *n.SkewSeconds)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.System, n.Address, probed, bundle, revocationText(n, status.RevocationVersion), clock, answers(n, status.Keys))
	}
	return table.Flush()
}

// revocationText says which revocation list a node has, as its logins have shown.
func revocationText(n ca.NodeStatus, version uint64) string {
	switch {
	case n.Canary == nil:
		return "-"
	case n.Canary.Outcome == ca.Accepted:
		return "NOT CHECKED"
	case n.Canary.Outcome != ca.Refused:
		return "unknown"
	case n.RevocationSeen >= version:
		return "current"
	case n.RevocationSeen > 0:
		return fmt.Sprintf("%d, an old one", n.RevocationSeen)
	}
	return "checked, version unknown"
}

// answers says what a node made of the keys: "active accepted, retiring refused".
func answers(n ca.NodeStatus, keys []ca.KeyStatus) string {
	var texts []string
	for _, k := range keys {
		answer, ok := n.Keys[k.Fingerprint]
		switch {
		case !ok || k.State == ca.KeyRetired:
		case k.State == ca.KeyCompromised && answer.Outcome == ca.Accepted:
			texts = append(texts, "COMPROMISED KEY ACCEPTED")
		default:
			texts = append(texts, fmt.Sprintf("%s %s", k.State, answer.Outcome))
		}
	}
	for _, fp := range slices.Sorted(maps.Keys(n.Keys)) {
		if detail := n.Keys[fp].Detail; n.Keys[fp].Outcome == ca.Unknown && detail != "" {
			texts = append(texts, "("+detail+")")
			break
		}
	}
	return cmp.Or(strings.Join(texts, ", "), "-")
}

func printNext(s streams, status ca.RingStatus) error {
	n := status.Next
	var err error
	switch {
	case n.Step == "":
		_, err = fmt.Fprintln(s.out, "next: nothing; 'sallyport ca rotate' begins a rotation")
	case n.Ready:
		_, err = fmt.Fprintf(s.out, "next: sallyport ca %s %s\n", n.Step, n.Key)
	default:
		_, err = fmt.Fprintf(s.out, "next: sallyport ca %s %s, but %s\n      %s\n", n.Step, n.Key, n.Reason, n.Remedy)
	}
	return err
}

func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// printStep says what a step has done.
func printStep(s streams, act ca.Act, status ca.RingStatus) error {
	done := "done"
	if act.DryRun {
		done = "would be done"
	}
	fmt.Fprintf(s.out, "%s: %s; generation %d, bundle %d\n", act.Step, done, status.Generation, status.Version)
	if act.Step == ca.StepCompromise {
		fmt.Fprintf(s.out, "%s of the key closed\n", counted(status.Closed, "connection"))
		fmt.Fprint(s.out, compromiseChecklist)
	}
	return printNext(s, status)
}

const compromiseChecklist = `
What only people can do now:
 1. Bring the bundle and the revocation list to every node at once; do not wait for
    their timers:  systemctl start sallyport-node-sync.service
 2. Prove it: sallyport ca probe. Cut off a node that does not follow.
 3. On each node, end the sessions that the compromised key opened: sshd logs
    "CA ... <fingerprint>" with the session's process.
 4. Search the nodes' logs for serials that 'sallyport ca certificates' does not
    know: those certificates are forged.
 5. Find out how the key got out. If the host is no longer yours, replace the
    distribution key too, by another way than this service.
 6. Make a new standby key: sallyport ca stage --standby, then sallyport ca publish.

`

// rotateReport writes the progress of a rotation, without saying anything twice.
type rotateReport struct {
	out  io.Writer
	last string
}

func (r *rotateReport) show(p ca.Progress) {
	switch {
	case p.Done != "":
		fmt.Fprintf(r.out, "%-9s done: generation %d, bundle %d\n", p.Done, p.Status.Generation, p.Status.Version)
		r.last = ""
	case p.Wait != nil:
		text := p.Wait.Reason + "; " + p.Wait.Remedy
		if text != r.last {
			fmt.Fprintf(r.out, "wait      %s\n", text)
		}
		r.last = text
	}
	for _, n := range p.Nodes {
		fmt.Fprintf(r.out, "probe     %s %s: %s\n", n.System, n.Address, answers(n, p.Status.Keys))
	}
}
