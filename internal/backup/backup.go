// Package backup writes the files of an installation into one archive, and takes
// them out again.
//
// Guarantee: an archive holds the store at one moment, the other files as they
// were at that moment, and an audit log that is not behind the store. Extract
// either makes the whole folder or nothing.
//
// Threat: an archive may come from anybody. Names stay inside the new folder;
// nothing but regular files is made. That the content is what was written is for
// the sealing around the archive to show (internal/sealed).
//
// Caveat: going back to a backup is going back in time; see docs/operations.md.
//
// Format: a tar archive (POSIX.1-2001). The first entry is backup.json, a
// [Manifest]; then the store; then every other file of the data folder; then the
// audit log, its head before its lines. The order is that of safety: what is in the
// store was recorded in the log before, so a log that is copied later knows all of
// it; and lines that are copied after their head are never behind it.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
)

const (
	// manifestName is the first entry.
	manifestName = "backup.json"
	// format is the version of the format.
	format = 1

	// The bounds of an archive keep a mistake ("/" as data folder) from becoming a
	// backup of the machine.
	maxFiles         = 100_000
	maxNameBytes     = 256
	maxManifestBytes = 64 << 10
)

var (
	// ErrChanged says that files were replaced while they were copied, as a
	// rotation of keys does. Another try will do.
	ErrChanged = errors.New("files changed while they were copied")
	// ErrFormat says that an archive is not one of this package.
	ErrFormat = errors.New("not a backup of this version")
)

// A Manifest says what an archive is. Names are paths in the archive.
type Manifest struct {
	Format  int       `json:"format"`
	Created time.Time `json:"created"`
	// Version is that of the program that wrote the archive, Host its machine.
	Version string `json:"version"`
	Host    string `json:"host"`
	// Store, Audit and Config name the store, the folder of the audit log and the
	// configuration file.
	Store  string `json:"store"`
	Audit  string `json:"audit"`
	Config string `json:"config"`
}

// A Source is what goes into an archive.
type Source struct {
	// Root is the data folder. All its regular files go in, except the store, the
	// audit log, and what Without names.
	Root    string
	Without []string
	// Store is the path of the store; Snapshot copies it as it is at one moment and
	// says how many bytes that are.
	Store    string
	Snapshot func(context.Context) (io.ReadCloser, int64, error)
	// Audit is the folder of the audit log. Config is the configuration file, Key
	// that of the CA key, or empty. They may lie outside of Root; then their place
	// in the archive is "audit", "sallyport.toml" and "ca_key".
	Audit, Config, Key string
	// Version and Host stand in the manifest.
	Version, Host string
}

// checkName refuses names that could leave a folder or confuse its readers.
func checkName(name string) error {
	if !filepath.IsLocal(name) || filepath.ToSlash(filepath.Clean(name)) != name || name == "." || len(name) > maxNameBytes ||
		strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return fmt.Errorf("name %.80q cannot be in a backup", name)
	}
	return nil
}

// contextReader ends a copy when ctx ends.
type contextReader struct {
	ctx context.Context //nolint:containedctx // it lives for one copy
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
