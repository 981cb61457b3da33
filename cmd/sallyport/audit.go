package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sallyport/store/audit"
)

const auditVerifyLong = `Read the audit log from its first line and check every byte: a changed, missing,
inserted or moved line is found, and so is a missing end. What stands after the
last acknowledged event and is no event is reported as unfinished. The service may run
meanwhile. Exit code 1 says that the log is not as it was written, or could not be
read; the message tells which.

DIR is the folder of the log; by default the one that the configuration names.
Keep the printed head hash elsewhere from time to time: it proves later that
nothing before it was rewritten.`

func newAudit(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "audit", Short: "Check the audit log", GroupID: "admin", Args: refuseUnknown,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	verify := &cobra.Command{
		Use: "verify [DIR]", Short: "Find any change to the audit log", Long: auditVerifyLong, Args: cobra.MaximumNArgs(1),
	}
	config := configFlag(verify, s)
	form := outputFlag(verify)
	verify.RunE = func(_ *cobra.Command, args []string) error {
		dir, err := auditDir(s, *config, args)
		if err != nil {
			return err
		}
		report, err := audit.Verify(dir)
		if err != nil {
			return err
		}
		if *form == "json" {
			return printJSON(s.out, auditReport{
				Dir: dir, Files: report.Files, Events: report.Events, First: report.First, Last: report.Last,
				Sequence: report.Sequence, HeadHash: report.HeadHash, UnfinishedBytes: report.Unfinished,
			})
		}
		fmt.Fprintf(s.out, "%s: good: %s in %s\n", dir, counted(report.Events, "event"), counted(report.Files, "file"))
		if report.Events > 0 {
			fmt.Fprintf(s.out, "from %s to %s\nhead %d %s\n", stamp(report.First), stamp(report.Last),
				report.Sequence, report.HeadHash)
		}
		if report.Unfinished > 0 {
			fmt.Fprintf(s.out, "%d bytes after the last event are unfinished: being written now, or left by a crash\n", report.Unfinished)
		}
		return nil
	}
	cmd.AddCommand(verify)
	return cmd
}

// auditReport is the JSON form of an audit.Report.
type auditReport struct {
	Dir             string    `json:"dir"`
	Files           int       `json:"files"`
	Events          uint64    `json:"events"`
	First           time.Time `json:"first"`
	Last            time.Time `json:"last"`
	Sequence        uint64    `json:"sequence"`
	HeadHash        string    `json:"head_hash"`
	UnfinishedBytes int64     `json:"unfinished_bytes"`
}

func auditDir(s streams, config string, args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	f, err := loadConfig(config, s.getenv)
	return f.Audit.Dir, err
}
