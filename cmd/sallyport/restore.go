package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/ca"
	"sallyport/ca/approval"
	"sallyport/internal/backup"
	"sallyport/internal/sealed"
	"sallyport/store"
	"sallyport/store/audit"
	"sallyport/store/bolt"
)

const restoreLong = `Make the data folder DIR from a backup. DIR must not exist, or be empty: a restore
overwrites nothing. With a wrong passphrase, or if one bit of the file was changed
or its end is missing, nothing is made.

Store and audit log are checked on the way. The audit log goes on with an entry
about the restore; credentials that were cached for running connections are left
out. Serial numbers are random, never counted, so none that was given out after
the backup comes again.

A restore goes back in time. What happened after the backup is not in it: read the
list that is printed at the end before you start the service.`

// restoreNotes is what only people can know after a restore.
const restoreNotes = `What came after the backup is not in it. Before you start the service:
  1. Make sure that the old service is off, and stays off.
  2. Repeat each revocation since then; a person who was locked out may sign in
     again, and a certificate that was revoked counts again once a node has the
     restored list.
  3. Repeat each key that was retired or declared compromised since then: its
     private key may be back. A key that was made since then is lost; if nodes
     trust it, they refuse nothing, but nobody can sign with it.
  4. Receivers of audit events get those since the backup again, under the sequences
     that the old service used for others: the restore is on record between them.
     The archive of old audit files, if there is one, was not in the backup.
  5. Certificates that were issued since then stay valid until they end, and the
     ledger does not have them; the audit log of the old service has, if it is left.
`

func newRestore(s streams) *cobra.Command {
	var passphraseFile, reason string
	cmd := &cobra.Command{
		Use: "restore FILE DIR", Short: "Make a data folder from a backup", GroupID: "admin", Long: restoreLong,
		Args: exactArgs("FILE", "DIR"), Example: "  sallyport restore /mnt/backup/sallyport-2026-11-23 /etc/sallyport",
	}
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "read the passphrase of the backup from this file (mode 0600)")
	cmd.Flags().StringVar(&reason, "reason", "restore", "why, for the audit log of the restored service")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkReason(reason); err != nil {
			return err
		}
		passphrase, err := backupPassphrase(s, passphraseFile, false)
		if err != nil {
			return err
		}
		return restore(cmd.Context(), s, args[0], args[1], passphrase, reason)
	}
	return cmd
}

func restore(ctx context.Context, s streams, file, dir string, passphrase []byte, reason string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	r, err := sealed.NewReader(io.TeeReader(in, &progress{to: s.err, what: "read"}), passphrase)
	if err != nil {
		return fmt.Errorf("%q: %w; nothing was changed", file, err)
	}
	var held error
	m, err := backup.Extract(ctx, r, dir, func(staging string, m backup.Manifest) error {
		err := settle(ctx, s, staging, m, reason)
		if errors.Is(err, approval.ErrHeld) {
			held, err = err, nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%q: %w", file, err)
	}
	fmt.Fprintf(s.out, "%s: restored as it was on %s at %s\n", dir, stamp(m.Created), m.Host)
	fmt.Fprint(s.err, restoreNotes)
	if held != nil {
		fmt.Fprintf(s.err, "sallyport: note: the service does not start from it before that: %v\n", held)
	}
	notePaths(s, filepath.Join(dir, filepath.FromSlash(m.Config)), dir)
	return nil
}

// settle checks what was restored into dir, and makes it a state of its own. The error
// wraps [approval.ErrHeld] if all is well and a second person is needed.
func settle(ctx context.Context, s streams, dir string, m backup.Manifest, reason string) error {
	if err := settleStore(ctx, filepath.Join(dir, filepath.FromSlash(m.Store))); err != nil {
		return err
	}
	folder := filepath.Join(dir, filepath.FromSlash(m.Audit))
	log, err := audit.Open(audit.Config{Dir: folder})
	if err != nil {
		return err
	}
	// The first line that differs from the old log, should that have gone on: the
	// two can be told apart from here.
	err = log.Record(ctx, audit.Event{
		Action: audit.AdminAct, Outcome: audit.Success,
		Detail: map[string]string{
			"act": "restore", "uid": strconv.Itoa(os.Getuid()), "reason": reason,
			"backup_created": m.Created.Format(time.RFC3339), "backup_host": m.Host, "backup_version": m.Version,
		},
	})
	if err := errors.Join(err, log.Close()); err != nil {
		return err
	}
	// Older files are in the archive, which is in no backup.
	if _, err = audit.VerifyWith(folder, audit.Check{Partial: true}); err != nil {
		return err
	}
	return holdRestore(ctx, s, dir, m, reason)
}

// holdRestore has the next start wait for a second person, if its configuration wants one.
func holdRestore(ctx context.Context, s streams, dir string, m backup.Manifest, reason string) error {
	f, err := loadConfig(filepath.Join(dir, filepath.FromSlash(m.Config)), s.getenv)
	if err != nil {
		f = File{} // the start decides by the configuration that it has then
	}
	log, err := audit.Open(audit.Config{Dir: filepath.Join(dir, filepath.FromSlash(m.Audit))})
	if err != nil {
		return err
	}
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, filepath.FromSlash(m.Store))})
	if err != nil {
		return errors.Join(err, log.Close())
	}
	gate, err := newGate(f, db, log, nil)
	if err == nil {
		err = gate.Hold(ctx, approval.Request{
			Acts: []string{approval.Restore}, By: approval.Person{UID: os.Getuid()}, Reason: reason,
			Text: "serving from the backup of " + m.Created.Format(time.RFC3339) + " at " + m.Host,
			Key:  m.Created.Format(time.RFC3339Nano) + " " + m.Host,
		})
	}
	return errors.Join(err, db.Close(), log.Close())
}

// settleStore checks the store, and makes its records fit for today. The manifest
// goes: the next one is made anew, and newer than any that nodes have seen.
func settleStore(ctx context.Context, path string) error {
	db, err := bolt.Open(bolt.Config{Path: path})
	if err != nil {
		return err
	}
	err = db.Check(ctx)
	if err == nil {
		err = ca.Restored(ctx, db)
	}
	if err == nil {
		err = forgetManifest(ctx, db)
	}
	return errors.Join(err, db.Close())
}

func forgetManifest(ctx context.Context, s store.Store) error {
	e, err := s.Get(ctx, manifestRecord)
	if err == nil {
		err = s.Delete(ctx, e)
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// notePaths says which parts of the restored service its configuration looks for
// elsewhere.
func notePaths(s streams, config, dir string) {
	f, err := loadConfig(config, s.getenv)
	if err != nil {
		fmt.Fprintf(s.err, "sallyport: note: the configuration needs care before it is used:\n%v\n", err)
		return
	}
	for _, part := range []struct{ key, path string }{
		{"data_dir", f.DataDir}, {"audit.dir", f.Audit.Dir}, {"ca.key", keyFile(f)},
	} {
		if rel, err := filepath.Rel(dir, part.path); part.path != "" && (err != nil || rel == ".." || strings.HasPrefix(rel, "../")) {
			fmt.Fprintf(s.err, "sallyport: note: %s in %s is %q, not in the restored folder\n", part.key, config, part.path)
		}
	}
}
