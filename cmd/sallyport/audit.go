package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"sallyport/sshd-config/nodesync"
	"sallyport/store/audit"
)

const auditVerifyLong = `Read the audit log from its first line, across the archive, and check every byte: a
changed, missing, inserted or moved line is found, and so is a missing end. What stands after the
last acknowledged event and is no event is reported as unfinished. The service may run
meanwhile. Exit code 1 says that the log is not as it was written, or could not be
read; the message tells which.

DIR is the folder of the log; by default the one that the configuration names, with
its archive.

Whoever may write the folder can compute a new chain. Two things show that:
  --key         the checkpoints in the log, each a signature of the hash of an event, must be
                by this key. What follows the last one is unsigned: its number is
                printed, and more than --unsigned from the first of these to the last is an error.
                Take the key from elsewhere than the folder; "sallyport audit key" prints it.
  --checkpoint  a checkpoint that was noted or shipped (the text, or the record as it
                arrived) must be in the log. Only this shows that the end was cut off
                behind an earlier checkpoint.`

func newAudit(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "audit", Short: "Check the audit log, and see how far it is shipped and signed", GroupID: "admin", Args: refuseUnknown,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAuditVerify(s), newAuditStatus(s), newAuditKey(s))
	return cmd
}

type auditVerifyOptions struct {
	archive     string
	keys        []string
	checkpoints []string
	from        string
	unsigned    time.Duration
}

func newAuditVerify(s streams) *cobra.Command {
	var opt auditVerifyOptions
	verify := &cobra.Command{
		Use: "verify [DIR]", Short: "Find any change to the audit log", Long: auditVerifyLong, Args: cobra.MaximumNArgs(1),
	}
	config := configFlag(verify, s)
	form := outputFlag(verify)
	flags := verify.Flags()
	flags.StringVar(&opt.archive, "archive", "", "folder of the archived files (with DIR)")
	flags.StringArrayVar(&opt.keys, "key", nil, "file of the public key that signs checkpoints; repeat it for older keys")
	flags.StringArrayVar(&opt.checkpoints, "checkpoint", nil, "file with a checkpoint that was noted or shipped; may be repeated")
	flags.StringVar(&opt.from, "from", "", "begin with the file that has this checkpoint, which is taken as true")
	flags.DurationVar(&opt.unsigned, "unsigned", time.Hour, "longest time from the first unsigned event to the last event, with --key")
	verify.RunE = func(_ *cobra.Command, args []string) error {
		dir, archive, err := auditDir(s, *config, args)
		if err != nil {
			return err
		}
		if opt.archive == "" {
			opt.archive = archive
		}
		check, err := opt.check()
		if err != nil {
			return err
		}
		report, err := audit.VerifyWith(dir, check)
		if err != nil {
			return err
		}
		if *form == "json" {
			err = printJSON(s.out, reportOf(dir, report))
		} else {
			printAuditReport(s, dir, report, len(opt.keys) > 0)
		}
		if err == nil && len(opt.keys) > 0 {
			err = opt.tooMuchUnsigned(report)
		}
		return err
	}
	return verify
}

// check makes what audit.VerifyWith needs of the options.
func (opt auditVerifyOptions) check() (audit.Check, error) {
	check := audit.Check{Archive: opt.archive}
	keys, err := publicKeys(opt.keys)
	if err != nil {
		return check, err
	}
	if len(keys) > 0 {
		check.Signature = func(text, signature []byte) (string, error) {
			key, err := nodesync.Verify(keys, audit.CheckpointNamespace, text, signature)
			if err != nil {
				return "", err
			}
			return ssh.FingerprintSHA256(key), nil
		}
	}
	for _, path := range opt.checkpoints {
		c, err := checkpointFile(path)
		if err != nil {
			return check, err
		}
		check.Known = append(check.Known, c)
	}
	if opt.from != "" {
		c, err := checkpointFile(opt.from)
		if err != nil {
			return check, err
		}
		check.From = &c
	}
	return check, nil
}

// tooMuchUnsigned is the error of a log whose end nobody has signed for long.
func (opt auditVerifyOptions) tooMuchUnsigned(r audit.Report) error {
	switch {
	case r.Events == 0:
		return nil
	case r.Checkpoints == 0:
		return fmt.Errorf("no checkpoint is signed: all %s may have been rewritten", counted(r.Events, "event"))
	case r.UnsignedFor > opt.unsigned:
		return fmt.Errorf("%s behind the last checkpoint, over %s, are unsigned and may have been rewritten (--unsigned %s)",
			counted(r.Unsigned, "event"), r.UnsignedFor.Round(time.Second), opt.unsigned)
	}
	return nil
}

func printAuditReport(s streams, dir string, r audit.Report, checked bool) {
	fmt.Fprintf(s.out, "%s: good: %s in %s", dir, counted(r.Events, "event"), counted(r.Files, "file"))
	if r.Archived > 0 {
		fmt.Fprintf(s.out, ", %d of them archived", r.Archived)
	}
	fmt.Fprintln(s.out)
	if r.Events > 0 {
		fmt.Fprintf(s.out, "from %s to %s\nhead %d %s\n", stamp(r.First), stamp(r.Last), r.Sequence, r.HeadHash)
	}
	switch {
	case r.Checkpoints > 0 && checked:
		fmt.Fprintf(s.out, "signed up to event %d on %s by %s; unsigned after it: %s\n", r.Signed.Sequence, stamp(r.Signed.Time), r.Key, counted(r.Unsigned, "event"))
	case r.Checkpoints > 0:
		fmt.Fprintf(s.out, "%s, the last of event %d; signatures were not checked: give --key\n", counted(r.Checkpoints, "checkpoint"), r.Signed.Sequence)
	}
	if r.Unfinished > 0 {
		fmt.Fprintf(s.out, "%d bytes after the last event are unfinished: being written now, or left by a crash\n", r.Unfinished)
	}
}

// auditReport is the JSON form of an audit.Report.
type auditReport struct {
	Dir             string    `json:"dir"`
	Files           int       `json:"files"`
	Archived        int       `json:"archived_files"`
	Events          uint64    `json:"events"`
	First           time.Time `json:"first"`
	Last            time.Time `json:"last"`
	Sequence        uint64    `json:"sequence"`
	HeadHash        string    `json:"head_hash"`
	UnfinishedBytes int64     `json:"unfinished_bytes"`
	Checkpoints     uint64    `json:"checkpoints"`
	SignedSequence  uint64    `json:"signed_sequence"`
	SignedHash      string    `json:"signed_hash,omitempty"`
	SignedBy        string    `json:"signed_by,omitempty"` // only if signatures were checked
	Unsigned        uint64    `json:"unsigned_events"`
	UnsignedSeconds int64     `json:"unsigned_seconds"`
}

func reportOf(dir string, r audit.Report) auditReport {
	return auditReport{
		Dir: dir, Files: r.Files, Archived: r.Archived, Events: r.Events, First: r.First, Last: r.Last,
		Sequence: r.Sequence, HeadHash: r.HeadHash, UnfinishedBytes: r.Unfinished,
		Checkpoints: r.Checkpoints, SignedSequence: r.Signed.Sequence, SignedHash: r.Signed.Hash, SignedBy: r.Key,
		Unsigned: r.Unsigned, UnsignedSeconds: int64(r.UnsignedFor.Seconds()),
	}
}

// auditDir is the folder of the log and its archive.
func auditDir(s streams, config string, args []string) (dir, archive string, err error) {
	if len(args) == 1 {
		return args[0], "", nil
	}
	f, err := loadConfig(config, s.getenv)
	return f.Audit.Dir, f.Audit.ArchiveDir, err
}
