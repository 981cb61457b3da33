package nodesync

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// maxSkew is how far ahead of this node's clock a manifest may have been issued. Past its end no manifest is adopted, whatever the
// clocks: it is made anew at half its life, so that a clock which is right within hours never meets the end.
const maxSkew = 10 * time.Minute

// notOlder compares with the manifest in place, which root wrote, and with the version that the node was told to expect. It returns
// the version in place; 0 means that there is none.
func (r *release) notOlder(cfg Config) (have int64, err error) {
	last, text, err := lastManifest(cfg.Dir)
	switch {
	case err != nil:
		return 0, err
	case r.manifest.Version < last.Version:
		return 0, fmt.Errorf("%w: version %d is offered, version %d is here", ErrReplay, r.manifest.Version, last.Version)
	case r.manifest.Version == last.Version && !bytes.Equal(text, r.files[ManifestFile]):
		return 0, fmt.Errorf("%w, or as old: version %d is offered with other content", ErrReplay, last.Version)
	case r.manifest.Version < cfg.AtLeast:
		return 0, fmt.Errorf("%w, or than it was told to expect: version %d is offered, at least %d must be", ErrReplay, r.manifest.Version, cfg.AtLeast)
	case last.Version == 0 && cfg.AtLeast == 0 && cfg.Exposed:
		return 0, fmt.Errorf("%w: plain HTTP shows whoever is on the way an old copy as well as a new one, so nothing is installed; %s", ErrUnpinned, pinRemedy)
	}
	return last.Version, nil
}

const pinRemedy = `ask the service by https://, or give the version that "sallyport ca status" prints on the serving machine: --at-least VERSION, or SALLYPORT_NODE_AT_LEAST`

// lastManifest is the newest manifest that this node is known to have adopted, with its text; zero if there is none. Its own file
// says so, or the one that replace kept, should the first be lost.
func lastManifest(dir string) (Manifest, []byte, error) {
	for _, name := range []string{ManifestFile, ManifestFile + ".prev"} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Manifest{}, nil, err
		}
		m, err := ParseManifest(text)
		if err != nil {
			return m, nil, fmt.Errorf("%q is damaged, so no version can be compared: %w; find out why, then remove it and give the version to expect with --at-least", path, err)
		}
		return m, text, nil
	}
	return Manifest{}, nil, nil
}

func (m Manifest) ended(now time.Time) bool { return !now.Before(m.ExpiresAt) }

// timely refuses a manifest that is not of this time. Keeping what stands past its end is one thing, adopting is another: a mirror
// with an old copy would revive keys that were retired, on every node that has no state.
func (r *release) timely(now time.Time, have int64, changes bool) error {
	stays := "nothing is changed"
	switch {
	case have == 0:
		stays = "it is not adopted; this node has none yet, so nothing is installed"
	case changes:
		stays = fmt.Sprintf("it is not adopted; this node keeps version %d", have)
	}
	if r.manifest.ended(now) {
		remedy := "look whether the service or a mirror is frozen, and whether this node's clock is right"
		if have == 0 {
			remedy += "; " + pinRemedy
		}
		return fmt.Errorf("%w on %s: %s; %s", ErrExpired, timeText(r.manifest.ExpiresAt), stays, remedy)
	}
	if r.manifest.IssuedAt.After(now.Add(maxSkew)) {
		return fmt.Errorf("%w, on %s, and this node's clock says %s: %s; see chronyc tracking or timedatectl", ErrFuture, timeText(r.manifest.IssuedAt), timeText(now), stays)
	}
	return nil
}
