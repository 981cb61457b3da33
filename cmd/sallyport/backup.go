package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"sallyport/ca"
	"sallyport/internal/backup"
	"sallyport/internal/private"
	"sallyport/internal/sealed"
	"sallyport/store/audit"
)

const backupLong = `Write everything that the service cannot make again into one file: CA keys,
configuration, ledger, revocations, and the audit log but for its archive, which
is to be kept by other means; whatever else lies in data_dir comes along. The service may run meanwhile, or not.

The file is encrypted under a passphrase of its own (Argon2id, AES-256-GCM), of at
least 12 characters: from --passphrase-file, from the systemd credential
"backup-passphrase", or from the terminal. Whoever has file and passphrase has the
CA. An encrypted CA key stays encrypted inside, and its passphrase is not in the
backup unless its file lies in data_dir; a key in an HSM or agent is not in it.

FILE must not exist. It appears once it was written, read back and found whole.`

// backupAttempts is how often a backup is begun before a data folder that changes
// all the time is reported.
const backupAttempts = 3

func newBackup(s streams) *cobra.Command {
	var passphraseFile, reason string
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write an encrypted backup of the service", GroupID: "admin", Long: backupLong,
		Args: exactArgs("FILE"), Example: "  sallyport backup /mnt/backup/sallyport-2026-11-23",
	}
	config := configFlag(cmd, s)
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "read the passphrase from this file (mode 0600)")
	cmd.Flags().StringVar(&reason, "reason", "backup", "why, for the audit log")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := loadConfig(*config, s.getenv)
		if err != nil {
			return err
		}
		if err := checkDataDir(f.DataDir); err != nil {
			return err
		}
		if err := checkReason(reason); err != nil {
			return err
		}
		if err := checkOutside(args[0], f.DataDir); err != nil {
			return err
		}
		passphrase, err := backupPassphrase(s, passphraseFile, true)
		if err != nil {
			return err
		}
		b := &backupJob{s: s, file: f, config: *config, target: args[0], passphrase: passphrase, reason: reason}
		return b.run(cmd.Context())
	}
	return cmd
}

// checkOutside refuses a backup in the data folder, of which it would be a part.
func checkOutside(target, dataDir string) error {
	folder, err := filepath.EvalSymlinks(filepath.Dir(target))
	if err != nil {
		return err
	}
	data, err := filepath.EvalSymlinks(dataDir)
	if err != nil {
		return err
	}
	if folder, err = filepath.Abs(folder); err != nil {
		return err
	}
	if data, err = filepath.Abs(data); err != nil {
		return err
	}
	if inside, err := filepath.Rel(data, folder); err == nil && filepath.IsLocal(inside) {
		return fmt.Errorf("%q lies in the data folder, which the backup is of; give a file elsewhere", target)
	}
	return nil
}

// A backupJob is the making of one backup.
type backupJob struct {
	s              streams
	file           File
	config, target string
	passphrase     []byte
	reason         string
}

// checkReason refuses what would not be one line of the audit log.
func checkReason(reason string) error {
	if strings.TrimSpace(reason) == "" || len(reason) > 200 || strings.ContainsFunc(reason, unicode.IsControl) {
		return usageError{errors.New("--reason: must be one line of at most 200 bytes")}
	}
	return nil
}

func (b *backupJob) run(ctx context.Context) error {
	if _, err := os.Lstat(b.target); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%q exists already; nothing was changed", b.target)
	}
	dir := filepath.Dir(b.target)
	out, err := os.CreateTemp(dir, ".backup-*") // mode 0600
	if err != nil {
		return err
	}
	err = b.writeAndCheck(ctx, out)
	err = errors.Join(err, out.Close())
	if err == nil {
		// Rename replaces what is there: that it is ours is for O_EXCL to say.
		err = writeNew(b.target, nil, 0o600)
	}
	if err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}
	if err := os.Rename(out.Name(), b.target); err != nil {
		return err
	}
	return private.SyncDir(dir)
}

func (b *backupJob) writeAndCheck(ctx context.Context, out *os.File) (err error) {
	snapshot, done, err := b.records(ctx)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		if err = b.write(ctx, out, snapshot); !errors.Is(err, backup.ErrChanged) || attempt == backupAttempts {
			break
		}
		fmt.Fprintf(b.s.err, "sallyport: note: %v; beginning again\n", err)
	}
	if err := errors.Join(err, done()); err != nil {
		return err
	}
	m, files, err := b.readBack(ctx, out)
	if err != nil {
		return fmt.Errorf("what was written does not read back: %w", err)
	}
	info, err := out.Stat()
	if err != nil {
		return err
	}
	fmt.Fprintf(b.s.out, "%s: %s of %s, %s, read back and whole\n", b.target, counted(files, "file"), stamp(m.Created), size(info.Size()))
	return nil
}

func (b *backupJob) write(ctx context.Context, out *os.File, snapshot snapshotFunc) error {
	if err := errors.Join(out.Truncate(0), seekStart(out)); err != nil {
		return err
	}
	progress := &progress{to: b.s.err, what: "written"}
	w, err := sealed.NewWriter(io.MultiWriter(out, progress), b.passphrase)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	err = backup.Write(ctx, w, backup.Source{
		Root: b.file.DataDir, Without: []string{out.Name(), b.file.Audit.ArchiveDir}, Store: b.file.databasePath(), Snapshot: snapshot,
		Audit: b.file.Audit.Dir, Config: b.config, Key: keyFile(b.file), Version: version, Host: host,
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Sync()
}

// keyFile is the CA's initial key if it lies in a file, which a rotation removes.
func keyFile(f File) string {
	if !f.CA.Enabled || ca.IsAgent(f.CA.Key) {
		return ""
	}
	if _, err := os.Lstat(f.CA.Key); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return f.CA.Key
}

func (b *backupJob) readBack(ctx context.Context, out *os.File) (backup.Manifest, int, error) {
	if err := seekStart(out); err != nil {
		return backup.Manifest{}, 0, err
	}
	r, err := sealed.NewReader(io.TeeReader(out, &progress{to: b.s.err, what: "read back"}), b.passphrase)
	if err != nil {
		return backup.Manifest{}, 0, err
	}
	return backup.Inspect(ctx, r)
}

// A snapshotFunc copies the store.
type snapshotFunc func(context.Context) (io.ReadCloser, int64, error)

// records finds the store: the service hands out a copy over its admin socket; if
// none runs, the folder is kept locked until done. Either way the audit log says
// first who makes a backup, and why.
func (b *backupJob) records(ctx context.Context) (snapshot snapshotFunc, done func() error, err error) {
	running := adminClient(b.file)
	if err := running.call(ctx, http.MethodGet, "/livez", nil, &struct{}{}); !errors.Is(err, errNoDaemon) {
		return func(ctx context.Context) (io.ReadCloser, int64, error) { return hotSnapshot(ctx, running, b.reason) }, func() error { return nil }, err
	}
	d, p := &daemon{}, &parts{file: b.file}
	if err := d.openRecords(p); err != nil {
		return nil, nil, errors.Join(err, d.close())
	}
	err = p.audit.Record(ctx, audit.Event{
		Action: audit.AdminAct, Outcome: audit.Unknown,
		Detail: map[string]string{"act": "backup", "uid": strconv.Itoa(os.Getuid()), "reason": b.reason},
	})
	if err != nil {
		return nil, nil, errors.Join(err, d.close())
	}
	return func(ctx context.Context) (io.ReadCloser, int64, error) {
		f, err := p.db.Snapshot(ctx)
		if err != nil {
			return nil, 0, err
		}
		info, err := f.Stat()
		if err != nil {
			return nil, 0, errors.Join(err, f.Close())
		}
		return f, info.Size(), nil
	}, d.close, nil
}

func hotSnapshot(ctx context.Context, c *client, reason string) (io.ReadCloser, int64, error) {
	body := map[string]string{"reason": reason}
	resp, err := c.send(ctx, http.MethodPost, "/v1/admin/snapshot", body, "application/octet-stream")
	if err != nil {
		return nil, 0, err
	}
	if resp.ContentLength <= 0 {
		return nil, 0, errors.Join(errors.New("the service does not say how large its records are"), resp.Body.Close())
	}
	return resp.Body, resp.ContentLength, nil
}

func seekStart(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// A progress counts bytes, and says so every two seconds.
type progress struct {
	to    io.Writer
	what  string
	bytes int64
	last  time.Time
}

func (p *progress) Write(b []byte) (int, error) {
	p.bytes += int64(len(b))
	switch now := time.Now(); {
	case p.last.IsZero():
		p.last = now
	case now.Sub(p.last) >= 2*time.Second:
		p.last = now
		fmt.Fprintf(p.to, "sallyport: %s %s\n", size(p.bytes), p.what)
	}
	return len(b), nil
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	default:
		return fmt.Sprintf("%d MiB", n>>20)
	}
}
