package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/ca"
	"sallyport/httpapi"
)

// A remoteRing is the key ring of a running service.
type remoteRing struct{ c *client }

func (r remoteRing) RingStatus(ctx context.Context) (status ca.RingStatus, err error) {
	err = r.c.call(ctx, http.MethodGet, "/v1/admin/ca", nil, &status)
	return status, err
}

// Act asks the service, which knows the actor's uid from the socket.
func (r remoteRing) Act(ctx context.Context, act ca.Act) (status ca.RingStatus, err error) {
	body := struct {
		Key        string   `json:"key"`
		Name       string   `json:"name"`
		Standby    bool     `json:"standby"`
		AllowFile  bool     `json:"allow_file_key"`
		Except     []string `json:"except,omitempty"`
		Generation uint64   `json:"generation,omitempty"`
		DryRun     bool     `json:"dry_run"`
		Reason     string   `json:"reason"`
	}{act.Key, act.Name, act.Standby, act.AllowFile, act.Except, act.Generation, act.DryRun, act.Actor.Reason}
	err = r.c.call(ctx, http.MethodPost, "/v1/admin/ca/"+act.Step, body, &status)
	return status, asStepError(err)
}

func (r remoteRing) Probe(ctx context.Context) (nodes []ca.NodeStatus, err error) {
	err = r.c.call(ctx, http.MethodPost, "/v1/admin/ca/probe", struct{}{}, &nodes)
	return nodes, asStepError(err)
}

// ProbeRefusals asks the service, which knows the actor's uid from the socket.
func (r remoteRing) ProbeRefusals(ctx context.Context, actor ca.Actor, system string, accounts []string) (answers []ca.RefusalAnswer, err error) {
	body := struct {
		System   string   `json:"system"`
		Accounts []string `json:"accounts"`
		Reason   string   `json:"reason"`
	}{system, accounts, actor.Reason}
	err = r.c.call(ctx, http.MethodPost, "/v1/admin/ca/refusals", body, &answers)
	return answers, asStepError(err)
}

// asStepError gives a refusal of the service the type that the library has.
func asStepError(err error) error {
	if p, ok := errors.AsType[*problem](err); ok && p.Code == "step_refused" {
		reason, remedy, _ := strings.Cut(p.Detail, "; ")
		return &ca.StepError{Reason: reason, Remedy: remedy}
	}
	return err
}

// An adminRing is all that the commands ask of a key ring.
type adminRing interface {
	ca.Rotator
	httpapi.RefusalProber
}

// withRing hands use the ring of the running service, or of the data folder while
// none runs.
func withRing(s streams, config string, use func(adminRing) error) error {
	ring, err := openRing(s, config)
	if err != nil {
		return err
	}
	return use(ring)
}

func openRing(s streams, config string) (*eitherRing, error) {
	f, err := loadConfig(config, s.getenv)
	if err != nil {
		return nil, err
	}
	if !f.CA.Enabled {
		return nil, errors.New("ca.enabled is false: this service has no CA")
	}
	return &eitherRing{remote: remoteRing{adminClient(f)}, streams: s, file: f}, nil
}

// stepOptions are the flags of a step.
type stepOptions struct {
	act    ca.Act
	reason string
}

// stepHelp describes the steps in the order of a key's life.
var stepHelp = []struct{ step, short, long string }{
	{ca.StepStage, "Make a new CA key that no node trusts yet", "Make a new CA key. No node trusts it, and it signs nothing, until it is published and activated."},
	{ca.StepPublish, "Put the staged key into the bundle", "Put the staged key into the bundle of trusted keys, which the nodes pull. The active key stays the first line."},
	{ca.StepActivate, "Sign with the pending key", "Sign with the pending key from now on. Every node must have shown by a login that it accepts this key and the\nactive one since the bundle was published; see 'sallyport ca probe'."},
	{ca.StepRetire, "Retire the former key", "Retire the key that was active before, in two steps. First, when no certificate of it is valid any more, it leaves the\nbundle. Then, when every node has shown by a login that it refuses the key, its private key is destroyed."},
	{ca.StepAbandon, "Give up a key that does not sign", "Give up a staged, pending or standby key and destroy its private key. A key that signed before a rollback retires\nas any other."},
	{ca.StepRollback, "Sign with the retiring key again", "Sign with the retiring key again; the one that replaced it is pending. This is possible while the retiring key is in\nthe bundle."},
	{ca.StepCompromise, "End a key that somebody else may have", "End a key for good: it signs nothing, leaves the bundle, and stands in the revocation list for ever. If it was active,\nthe standby key signs at once; without one, nothing is signed until a new key is activated."},
}

func newCASteps(s streams) []*cobra.Command {
	var commands []*cobra.Command
	for _, h := range stepHelp {
		commands = append(commands, newCAStep(s, h.step, h.short, h.long))
	}
	return append(commands, newCAProbe(s), newCARotate(s), newCAStatus(s))
}

func newCAStep(s streams, step, short, long string) *cobra.Command {
	opt := stepOptions{act: ca.Act{Step: step}}
	cmd := &cobra.Command{Use: step + " [FINGERPRINT]", Short: short, Long: long, Args: cobra.MaximumNArgs(1)}
	if step == ca.StepStage {
		cmd.Use, cmd.Args = step, exactArgs()
	}
	config := configFlag(cmd, s)
	form := outputFlag(cmd)
	f := cmd.Flags()
	f.BoolVar(&opt.act.DryRun, "dry-run", false, "check everything and change nothing")
	f.StringVar(&opt.reason, "reason", "", "why; it is in the audit log")
	f.Uint64Var(&opt.act.Generation, "generation", 0, "refuse if the key ring is not of this generation (see 'sallyport ca status')")
	switch step {
	case ca.StepStage:
		f.BoolVar(&opt.act.Standby, "standby", false, "a key for emergencies, which nodes trust and which does not sign")
		f.StringVar(&opt.act.Name, "key", "", `a key that exists, as in ca.key: "agent:/path/to/socket#SHA256:…"`)
		allowFileFlag(cmd, &opt.act.AllowFile)
	case ca.StepActivate, ca.StepRetire:
		exceptFlag(cmd, &opt.act.Except)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			opt.act.Key = args[0]
		}
		opt.act.Actor = ca.Actor{UID: os.Getuid(), Reason: opt.reason}
		if err := checkKeyFlag(opt.act.Name); err != nil {
			return err
		}
		return withRing(s, *config, func(ring adminRing) error {
			status, err := ring.Act(cmd.Context(), opt.act)
			if err != nil {
				return err
			}
			if *form == "json" {
				return printJSON(s.out, status)
			}
			return printStep(s, opt.act, status)
		})
	}
	return cmd
}

func allowFileFlag(cmd *cobra.Command, allow *bool) {
	cmd.Flags().BoolVar(allow, "allow-file-key", false, "make a key in a file although an ssh-agent has the active one; needs --reason")
}

// checkKeyFlag refuses a --key that names no key of an agent, before a service is asked.
func checkKeyFlag(name string) error {
	if name == "" {
		return nil
	}
	if _, _, err := ca.ParseAgent(name); err != nil {
		return usageError{fmt.Errorf("--key: must be agent:/path#SHA256:…: %w", err)}
	}
	return nil
}

func exceptFlag(cmd *cobra.Command, except *[]string) {
	cmd.Flags().StringSliceVar(except, "except", nil, `nodes of which nothing need be proved, or "*"; needs --reason`)
}

func newCAProbe(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "probe", Short: "Ask every node which CA keys it trusts", Args: exactArgs(),
		Long: "Log in on every node, by its own address, with a certificate of each key that can do nothing but tell the time.\nExit code 1 means that a node does not follow the bundle.",
	}
	config := configFlag(cmd, s)
	form := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withRing(s, *config, func(ring adminRing) error {
			nodes, err := ring.Probe(cmd.Context())
			if err != nil {
				return err
			}
			status, err := ring.RingStatus(cmd.Context())
			if err != nil {
				return err
			}
			if *form == "json" {
				err = printJSON(s.out, nodes)
			} else {
				err = printNodes(s, status)
			}
			return cmp.Or(err, probeVerdict(nodes, status.Version))
		})
	}
	return cmd
}

// probeVerdict names every node with which something is wrong.
func probeVerdict(nodes []ca.NodeStatus, bundle uint64) error {
	var silent, behind, unchecked []string
	for _, n := range nodes {
		answered := false
		for _, k := range n.Keys {
			answered = answered || k.Outcome != ca.Unknown
		}
		switch {
		case !answered:
			silent = append(silent, n.Address)
		case n.BundleSeen != bundle:
			behind = append(behind, n.Address)
		case n.Canary != nil && n.Canary.Outcome == ca.Accepted:
			unchecked = append(unchecked, n.Address)
		}
	}
	var faults []string
	for _, f := range []struct {
		nodes []string
		what  string
	}{
		{silent, "cannot be asked: see 'sallyport node check SYSTEM'"},
		{behind, fmt.Sprintf("does not follow bundle %d: on the node, 'systemctl start sallyport-node-sync.service'", bundle)},
		{unchecked, "accepts a revoked certificate: its RevokedKeys is missing or empty"},
	} {
		if len(f.nodes) > 0 {
			faults = append(faults, strings.Join(f.nodes, ", ")+" "+f.what)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return errors.New(strings.Join(faults, "; "))
}

const caRotateLong = `Replace the active CA key, with proof at every step and without a moment in which
a login fails: make a key, publish it, wait until every node accepts it, sign with
it, wait until no certificate of the old key is valid, take the old key out of the
bundle, wait until every node refuses it, and destroy it.

It may be interrupted at any point, also by kill -9: the same command goes on where
it was. A node that does not follow holds the rotation up, without harm, until it
does, or until --except names it.`

func newCARotate(s streams) *cobra.Command {
	var opt ca.RotateOptions
	var dryRun bool
	cmd := &cobra.Command{Use: "rotate", Short: "Replace the active CA key", Long: caRotateLong, Args: exactArgs()}
	config := configFlag(cmd, s)
	f := cmd.Flags()
	f.BoolVar(&opt.Resume, "resume", false, "finish a rotation that is under way, and begin none")
	f.BoolVar(&dryRun, "dry-run", false, "say what the next step is, and do nothing")
	f.StringVar(&opt.Actor.Reason, "reason", "", "why; it is in the audit log")
	f.StringVar(&opt.Name, "key", "", `rotate to a key that exists: "agent:/path/to/socket#SHA256:…"`)
	allowFileFlag(cmd, &opt.AllowFile)
	exceptFlag(cmd, &opt.Except)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		opt.Actor.UID = os.Getuid()
		if err := checkKeyFlag(opt.Name); err != nil {
			return err
		}
		return withRing(s, *config, func(ring adminRing) error {
			if dryRun {
				status, err := ring.RingStatus(cmd.Context())
				if err != nil {
					return err
				}
				return printNext(s, status)
			}
			report := &rotateReport{out: s.out}
			err := ca.Rotate(cmd.Context(), ring, opt, report.show)
			switch {
			case err != nil && cmd.Context().Err() != nil:
				return errors.New("interrupted; every state is safe to stay in: go on with 'sallyport ca rotate --resume'")
			case err != nil:
				return err
			}
			fmt.Fprintln(s.out, "done")
			return nil
		})
	}
	return cmd
}
