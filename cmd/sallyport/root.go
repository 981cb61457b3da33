package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
		Version:       version,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		// No command below has such a hook of its own, which would replace this one.
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return refuseEmpty(cmd) },
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
		newTop(s), newCA(s), newRevoke(s), newApprove(s), newKRL(s), newAudit(s), newPolicy(s), newSSHDConfig(s), newNode(s),
		newBackup(s), newRestore(s), newVersion())
	root.SetHelpCommand(newHelp(root))
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about any command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil {
				return usageError{err}
			}
			if len(rest) > 0 {
				return refuseUnknown(cmd, rest)
			}
			return cmd.Help()
		},
	}
}

// refuseMistyped refuses a word where a subcommand belongs also when --help stands
// beside it: cobra would show the help of the command above.
func refuseMistyped(root *cobra.Command, args []string) error {
	cmd, rest, err := root.Find(args)
	if err != nil || !cmd.HasAvailableSubCommands() {
		return nil //nolint:nilerr // cobra says it
	}
	if len(rest) > 0 && strings.HasPrefix(rest[0], cobra.ShellCompRequestCmd) {
		return nil // a shell asks what could follow
	}
	for _, word := range rest {
		if !strings.HasPrefix(word, "-") {
			return refuseUnknown(cmd, []string{word})
		}
	}
	return nil
}

// refuseEmpty refuses a flag that was given and says nothing, such as --user "$NAME" with
// a variable that is not set: without the flag, a command does something else.
func refuseEmpty(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		blank := func(v string) bool { return strings.TrimSpace(v) == "" }
		if err == nil && (len(values) == 0 || slices.ContainsFunc(values, blank)) {
			err = usageError{fmt.Errorf("--%s is empty", f.Name)}
		}
	})
	return err
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

// stamp is how a time is shown to people: as --issued-before reads it, too.
func stamp(t time.Time) string { return t.Local().Format(time.RFC3339) }

// counted is a number with what it counts.
func counted[N int | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
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
