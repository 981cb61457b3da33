package nodesync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Config says where the files come from and where they go. All is required but what its comment calls optional.
type Config struct {
	// Dir is the folder that sshd reads from. It exists, belongs to root or to this user, and only its owner may write there.
	Dir string
	// Signers is the path of the file whose keys may sign; optional, SignersFile in Dir. Kept as the Dir is.
	Signers string
	// Fetch reads one of the paths of the service: at most limit bytes, or an error.
	Fetch func(ctx context.Context, path string, limit int64) ([]byte, error)
	// AtLeast is the version below which nothing is adopted, for a node that has no manifest to compare with; optional. Exposed says
	// that whoever is on the way to the service can answer in its place: then a node without a manifest adopts nothing without AtLeast.
	AtLeast int64
	Exposed bool
	// SSHKeygen is the ssh-keygen that belongs to the node's sshd.
	SSHKeygen string
	// SSHD is the absolute path of sshd, whose configuration is tested after a change; optional. SSHDConfig is the file to test;
	// optional, sshd's own default.
	SSHD, SSHDConfig string
	// Step is called before each change of the disk with what comes next; optional.
	Step func(what string)
}

// A Report says what a run found and did.
type Report struct {
	Version   int64     `json:"version"`
	ExpiresAt time.Time `json:"expires_at"`
	// Changed are the names of the files that were replaced, in order; empty if the node was up to date.
	Changed []string `json:"changed"`
}

var (
	// ErrReplay says that the service or a mirror offers an older state than the node has, or than it was told to expect.
	ErrReplay = errors.New("the manifest is older than the one of this node")
	// ErrExpired says that the manifest has ended: the service or a mirror is frozen. No file was changed.
	ErrExpired = errors.New("the manifest has expired")
	// ErrFuture says that the manifest is of a time that this node's clock has not reached. No file was changed.
	ErrFuture = errors.New("the manifest was issued in the future")
	// ErrUnpinned says that a node without a manifest was told neither what version to expect nor a way that it can trust.
	ErrUnpinned = errors.New("this node has no manifest, and nobody says which version to expect")
	// ErrRunning says that another run holds the folder.
	ErrRunning = errors.New("another run is at work in this folder")

	errTorn = errors.New("the files do not belong together")
)

// A release is what a service offers: a manifest, checked, and its files.
type release struct {
	manifest Manifest
	files    map[string][]byte // the four files by name
}

// order is in which files are replaced. The manifest first: from then on an older state is refused, even if this run ends here.
// The revocation list before the trust file: a key that comes in must not count before what it must not sign is known.
func order() []string { return []string{ManifestFile, SignatureFile, RevocationFile, TrustFile} }

// Sync brings the folder to the state that the service offers. Unless the error comes from the last test of sshd's configuration,
// it means that no file that sshd reads was changed, or that the run was cut short and the next one goes on; what is in place is
// good in both cases.
func Sync(ctx context.Context, cfg Config) (Report, error) {
	unlock, err := lock(cfg.Dir)
	if err != nil {
		return Report{}, err
	}
	defer unlock()
	r, err := fetch(ctx, cfg)
	if errors.Is(err, errTorn) { // published anew between two requests
		r, err = fetch(ctx, cfg)
	}
	if err != nil {
		return Report{}, err
	}
	report := Report{Version: r.manifest.Version, ExpiresAt: r.manifest.ExpiresAt}
	have, err := r.notOlder(cfg)
	if err != nil {
		return report, err
	}
	stale := r.differing(cfg.Dir)
	if err := r.timely(time.Now(), have, len(stale) > 0); err != nil {
		return report, err
	}
	if len(stale) == 0 {
		return report, nil
	}
	if err := r.check(ctx, cfg); err != nil {
		return report, err
	}
	for _, name := range stale {
		if err := replace(cfg, name, r.files[name]); err != nil {
			return report, err
		}
		report.Changed = append(report.Changed, name)
	}
	return report, afterwards(ctx, cfg)
}

// lock checks the folder and keeps others out of it until the returned function is called or this process ends.
func lock(dir string) (func(), error) {
	if err := checkOwn(dir, fs.ModeDir); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%w: %q", ErrRunning, dir)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return func() { _ = d.Close() }, nil // gives the lock back; nothing was written through it
}

// checkOwn refuses what another user than root and this one could change.
func checkOwn(path string, kind fs.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode().Type() != kind:
		return fmt.Errorf("%q is a %v, which is not what belongs there", path, info.Mode())
	case !ok || st.Uid != 0 && int64(st.Uid) != int64(os.Geteuid()):
		return fmt.Errorf("%q belongs to another user; run: chown root:root %[1]q", path)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%q has mode %04o, so others may write it; run: chmod go-w %[1]q", path, info.Mode().Perm())
	}
	return nil
}

func fetch(ctx context.Context, cfg Config) (release, error) {
	r := release{files: map[string][]byte{}}
	get := func(name, path string, limit int64) (err error) {
		r.files[name], err = cfg.Fetch(ctx, path, limit)
		return err
	}
	if err := get(ManifestFile, ManifestPath, MaxManifest); err != nil {
		return r, err
	}
	if err := get(SignatureFile, SignaturePath, MaxSignature); err != nil {
		return r, err
	}
	if err := r.verify(cfg.signers()); err != nil {
		return r, err
	}
	// The sum tells a service whose newest files wait for a signature which ones are meant; a mirror needs not look at it.
	if err := get(RevocationFile, RevocationPath+"?sha256="+r.manifest.Revocation.SHA256, MaxFile); err != nil {
		return r, err
	}
	if err := get(TrustFile, TrustPath+"?sha256="+r.manifest.Trust.SHA256, MaxFile); err != nil {
		return r, err
	}
	for name, want := range map[string]FileSum{RevocationFile: r.manifest.Revocation, TrustFile: r.manifest.Trust} {
		if got := Sum(r.files[name]); got != want {
			return r, fmt.Errorf("%w: %s has %d bytes with SHA-256 %s, the manifest says %d with %s", errTorn, name, got.Size, got.SHA256, want.Size, want.SHA256)
		}
	}
	return r, nil
}

func (c Config) signers() string {
	if c.Signers != "" {
		return c.Signers
	}
	return filepath.Join(c.Dir, SignersFile)
}

// verify checks the signature before anything in the manifest is believed.
func (r *release) verify(signers string) error {
	if err := checkOwn(signers, 0); err != nil {
		return err
	}
	text, err := os.ReadFile(signers)
	if err != nil {
		return err
	}
	keys, err := ParseSigners(text)
	if err != nil {
		return fmt.Errorf("%q: %w", signers, err)
	}
	if _, err := Verify(keys, Namespace, r.files[ManifestFile], r.files[SignatureFile]); err != nil {
		return fmt.Errorf("%w: the manifest: %w", errTorn, err)
	}
	r.manifest, err = ParseManifest(r.files[ManifestFile])
	return err
}
