package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	auditName = regexp.MustCompile(`^audit-[0-9]{6,}\.jsonl$`)
	// cursorName says how far the log was shipped. It is copied before the log, so that
	// it is never ahead.
	cursorName = regexp.MustCompile(`^cursor-[a-z0-9-]{1,32}$`)
)

// A writer is the work on one archive.
type writer struct {
	ctx      context.Context //nolint:containedctx // it lives for one archive
	source   Source
	tar      *tar.Writer
	manifest Manifest
	// files are all but the store and the audit log: name in the archive to path.
	files map[string]string
}

// Write writes the archive of s to w. Memory does not depend on its size. If the
// error wraps ErrChanged, what was written is to be thrown away.
func Write(ctx context.Context, w io.Writer, s Source) error {
	a := &writer{ctx: ctx, source: s, tar: tar.NewWriter(w)}
	for _, step := range []func() error{a.prepare, a.find, a.addManifest, a.addStoreAndFiles, a.addAudit, a.tar.Close} {
		if err := step(); err != nil {
			return fmt.Errorf("backup: %w", err)
		}
	}
	return nil
}

// prepare makes all paths absolute and writes the manifest's text.
func (a *writer) prepare() error {
	s := &a.source
	for _, path := range []*string{&s.Root, &s.Store, &s.Audit, &s.Config, &s.Key} {
		if *path == "" {
			continue
		}
		full, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = full
	}
	a.manifest = Manifest{
		Format: format, Created: time.Now().UTC(), Version: s.Version, Host: s.Host,
		Store: "sallyport.db", Audit: a.name(s.Audit, "audit"), Config: a.name(s.Config, "sallyport.toml"),
	}
	return nil
}

// find lists the files.
func (a *writer) find() error {
	s := a.source
	a.files = make(map[string]string)
	if err := filepath.WalkDir(s.Root, a.visit); err != nil {
		return err
	}
	a.files[a.manifest.Config] = s.Config
	if s.Key != "" {
		a.files[a.name(s.Key, "ca_key")] = s.Key
	}
	for name := range a.files {
		if err := checkName(name); err != nil {
			return err
		}
	}
	return nil
}

// digests reads the files.
func (a *writer) digests() (map[string][32]byte, error) {
	digests := make(map[string][32]byte, len(a.files))
	for name, path := range a.files {
		sum := sha256.New()
		err := a.read(path, func(_ fs.FileInfo, r io.Reader) error {
			_, err := io.Copy(sum, r)
			return err
		})
		if err != nil {
			return nil, err
		}
		digests[name] = digest(sum)
	}
	return digests, nil
}

func digest(h hash.Hash) (sum [32]byte) {
	h.Sum(sum[:0])
	return sum
}

// visit adds a regular file below the root.
func (a *writer) visit(path string, d fs.DirEntry, err error) error {
	s := a.source
	switch {
	case err != nil:
		return err
	case path == s.Store, path == s.Audit, slices.Contains(s.Without, path):
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	case !d.Type().IsRegular():
		return nil // sockets; folders come with their files
	case strings.HasPrefix(d.Name(), ".snapshot-"):
		return nil // a copy of the store, made for this backup or left by a crash
	case len(a.files) == maxFiles:
		return fmt.Errorf("%q has more than %d files; is it the right folder?", s.Root, maxFiles)
	}
	name, err := filepath.Rel(s.Root, path)
	if err == nil {
		a.files[filepath.ToSlash(name)] = path
	}
	return err
}

// name is the place of path in the archive: its own below the root, else fallback.
func (a *writer) name(path, fallback string) string {
	if rel, err := filepath.Rel(a.source.Root, path); err == nil && filepath.IsLocal(rel) && rel != "." {
		return filepath.ToSlash(rel)
	}
	return fallback
}

// read hands use a regular file and exactly as many of its bytes as it has now.
func (a *writer) read(path string, use func(fs.FileInfo, io.Reader) error) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%q is not a regular file", path)
	}
	return use(info, io.LimitReader(contextReader{a.ctx, f}, info.Size()))
}

func (a *writer) add(name string, mode fs.FileMode, size int64, modified time.Time, content io.Reader) error {
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: int64(mode.Perm()),
		ModTime: modified.Truncate(time.Second), Format: tar.FormatPAX,
	}
	if err := a.tar.WriteHeader(header); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	n, err := io.Copy(a.tar, content)
	if err == nil && n < size {
		err = fmt.Errorf("%w: %q became shorter", ErrChanged, name)
	}
	return err
}

func (a *writer) addManifest() error {
	text, err := json.Marshal(a.manifest)
	if err != nil {
		return err
	}
	return a.add(manifestName, 0o600, int64(len(text)), a.manifest.Created, bytes.NewReader(text))
}

// addStoreAndFiles adds the store, and files that are the same before and after:
// the store speaks of them, of keys above all.
func (a *writer) addStoreAndFiles() error {
	before, err := a.digests()
	if err != nil {
		return err
	}
	if err := a.addStore(); err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(a.files))
	for _, name := range names {
		sum := sha256.New()
		err := a.read(a.files[name], func(info fs.FileInfo, r io.Reader) error {
			return a.add(name, info.Mode(), info.Size(), info.ModTime(), io.TeeReader(r, sum))
		})
		if err == nil && digest(sum) != before[name] {
			err = fmt.Errorf("%w: %q", ErrChanged, a.files[name])
		}
		if err != nil {
			return err
		}
	}
	if err := a.find(); err != nil {
		return err
	}
	if !slices.Equal(names, slices.Sorted(maps.Keys(a.files))) {
		return fmt.Errorf("%w: one was added or removed", ErrChanged)
	}
	return nil
}

func (a *writer) addStore() error {
	snapshot, size, err := a.source.Snapshot(a.ctx)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	err = a.add(a.manifest.Store, 0o600, size, a.manifest.Created, contextReader{a.ctx, snapshot})
	return errors.Join(err, snapshot.Close())
}

// addAudit adds the log as far as it goes now: cursors, the head, the files that are not
// archived. What a running service appends behind the head is taken or left: it belongs
// to a later time.
func (a *writer) addAudit() error {
	names, err := a.auditFiles(auditName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a log that was never begun
	}
	if err != nil {
		return err
	}
	cursors, err := a.auditFiles(cursorName)
	if err != nil {
		return err
	}
	for _, name := range cursors {
		if err := a.addAuditFile(name); err != nil {
			return err
		}
	}
	err = a.addAuditFile("head")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	later, err := a.auditFiles(auditName)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.Contains(later, name) {
			return fmt.Errorf("%w: %q was archived", ErrChanged, name)
		}
	}
	for _, name := range later {
		if err := a.addAuditFile(name); err != nil {
			return err
		}
	}
	return nil
}

// auditFiles lists the files of the log's folder that have such a name.
func (a *writer) auditFiles(like *regexp.Regexp) (names []string, err error) {
	entries, err := os.ReadDir(a.source.Audit)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if like.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (a *writer) addAuditFile(name string) error {
	return a.read(filepath.Join(a.source.Audit, name), func(info fs.FileInfo, r io.Reader) error {
		return a.add(a.manifest.Audit+"/"+name, info.Mode(), info.Size(), info.ModTime(), r)
	})
}
