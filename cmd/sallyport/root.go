package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

const rootLong = `Sallyport gives the users of an HPC centre a REST API for commands on its
login nodes. A token from the centre's identity provider goes in; a short-lived
SSH certificate, signed by Sallyport's own CA, opens the connection; the output
of the command comes back.

  sallyport demo            see it work on this machine
  sallyport init DIR        make a CA key and a configuration file
  sallyport serve           run the service
  sallyport exec SYSTEM -- COMMAND   run a command through a service`

const defaultConfig = "/etc/sallyport/sallyport.toml"

// newRoot builds the command tree. Nothing is shared between two trees.
func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:           "sallyport",
		Short:         "SSH certificate authority and command executor for HPC centres",
		Long:          rootLong,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          refuseUnknown,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())}
	})
	root.AddGroup(
		&cobra.Group{ID: "service", Title: "Run a service:"},
		&cobra.Group{ID: "use", Title: "Use a service:"},
		&cobra.Group{ID: "admin", Title: "Administer a service:"})
	root.AddCommand(
		newDemo(s), newInit(s), newServe(s), newCheckConfig(s), newImport(s),
		newExec(s), newCert(s), newWhoami(s),
		newTop(s), newCA(s), newRevoke(s), newKRL(s), newAudit(s), newPolicy(s), newSSHDConfig(s), newNode(s),
		newBackup(s), newRestore(s), newVersion())
	return root
}

// refuseUnknown refuses arguments of a command that has only subcommands.
func refuseUnknown(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return usageError{fmt.Errorf("%q is no command of '%s'; there are: %s", args[0], cmd.CommandPath(), strings.Join(names, ", "))}
}

// exactArgs refuses any other number of arguments than the names given.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(names) == 0 {
			return usageError{fmt.Errorf("'%s' takes no arguments, but got %q", cmd.CommandPath(), args)}
		}
		return usageError{fmt.Errorf("'%s' takes %s; see '%[1]s --help'", cmd.CommandPath(), strings.Join(names, " and "))}
	}
}

// configFlag adds --config and returns the chosen path after parsing.
func configFlag(cmd *cobra.Command, s streams) *string {
	return cmd.Flags().StringP("config", "c", cmp.Or(s.getenv("SALLYPORT_CONFIG"), defaultConfig),
		"configuration file (environment: SALLYPORT_CONFIG)")
}

// outputFlag adds -o and returns the chosen form after parsing.
func outputFlag(cmd *cobra.Command) *outputForm {
	form := outputForm("table")
	cmd.Flags().VarP(&form, "output", "o", `form of the output: "table" for people, "json" for programs`)
	return &form
}

// outputForm is a flag value: table or json.
type outputForm string

func (f *outputForm) String() string { return string(*f) }
func (f *outputForm) Type() string   { return "form" }

func (f *outputForm) Set(v string) error {
	if v != "table" && v != "json" {
		return fmt.Errorf(`must be "table" or "json"`)
	}
	*f = outputForm(v)
	return nil
}
