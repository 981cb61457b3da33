package backup

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"sallyport/internal/private"
)

// Extract makes the folder dir from an archive. The folder must not exist, or be
// empty; the one above it must exist. The files are first written to a folder
// beside it, and finish, which may be nil, looks at them there; only when the
// archive was read to its end, finish agrees, and all is on the disk, that folder
// takes its name. If anything fails there is no trace; if the machine fails there
// may be a folder called ".restoring-…".
//
// Folders get mode 0700; files theirs, without any bit for others to write.
func Extract(ctx context.Context, r io.Reader, dir string, finish func(staging string, m Manifest) error) (m Manifest, err error) {
	if err := checkTarget(dir); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	above := filepath.Dir(filepath.Clean(dir))
	staging, err := os.MkdirTemp(above, ".restoring-*") // mode 0700
	if err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("restore: %w", err), os.RemoveAll(staging))
		}
	}()
	root, err := os.OpenRoot(staging)
	if err != nil {
		return m, err
	}
	m, err = read(contextReader{ctx, r}, func(h *tar.Header, content io.Reader) error { return put(root, h, content) })
	if err = errors.Join(err, root.Close()); err != nil {
		return m, err
	}
	if finish != nil {
		if err := finish(staging, m); err != nil {
			return m, err
		}
	}
	if err := syncFolders(staging); err != nil {
		return m, err
	}
	// rename(2) replaces an empty folder, and no other; os.Rename replaces none.
	if err := syscall.Rename(staging, dir); err != nil {
		return m, fmt.Errorf("%q: %w", dir, err)
	}
	return m, private.SyncDir(above)
}

// Inspect reads an archive to its end as Extract does, and makes nothing. It
// returns the number of files beside the manifest.
func Inspect(ctx context.Context, r io.Reader) (m Manifest, count int, err error) {
	m, err = read(contextReader{ctx, r}, func(_ *tar.Header, content io.Reader) error {
		count++
		_, err := io.Copy(io.Discard, content)
		return err
	})
	if err != nil {
		return m, count, fmt.Errorf("backup: %w", err)
	}
	return m, count, nil
}

func checkTarget(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%q is not empty; nothing was changed", dir)
	}
	return err
}

// read hands each file of the archive to use, then reads r to its end: what seals
// the archive may only then have seen that it is whole.
func read(r io.Reader, use func(*tar.Header, io.Reader) error) (m Manifest, err error) {
	t := tar.NewReader(r)
	if m, err = readManifest(t); err != nil {
		return m, err
	}
	seen := map[string]bool{manifestName: true}
	for len(seen) <= maxFiles {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return m, finishArchive(r, m, seen)
		}
		if err != nil {
			return m, err
		}
		if err := checkName(h.Name); err != nil {
			return m, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		if h.Typeflag != tar.TypeReg || seen[h.Name] {
			return m, fmt.Errorf("%w: %q is not a file, or stands twice", ErrFormat, h.Name)
		}
		seen[h.Name] = true
		if err := use(h, t); err != nil {
			return m, err
		}
	}
	return m, fmt.Errorf("%w: it has more than %d files", ErrFormat, maxFiles)
}

func readManifest(t *tar.Reader) (m Manifest, err error) {
	h, err := t.Next()
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.EOF) || err == nil && h.Name != manifestName {
		return m, ErrFormat
	}
	if err != nil {
		return m, err
	}
	text, err := io.ReadAll(io.LimitReader(t, maxManifestBytes))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil || m.Format != format {
		return m, ErrFormat
	}
	for _, name := range []string{m.Store, m.Audit, m.Config} {
		if err := checkName(name); err != nil {
			return m, fmt.Errorf("%w: %w", ErrFormat, err)
		}
	}
	return m, nil
}

func finishArchive(r io.Reader, m Manifest, seen map[string]bool) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	if !seen[m.Store] || !seen[m.Config] {
		return fmt.Errorf("%w: store or configuration is missing", ErrFormat)
	}
	return nil
}

// put writes a file of the archive below root, durably.
func put(root *os.Root, h *tar.Header, content io.Reader) (err error) {
	if err := root.MkdirAll(path.Dir(h.Name), 0o700); err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode&0o755) | 0o600
	f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncFolders makes the names of all files durable.
func syncFolders(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return private.SyncDir(path)
	})
}
