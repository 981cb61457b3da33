package ship

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"sallyport/internal/private"
	"sallyport/store/audit"
)

const (
	cursorPrefix   = "cursor-"
	maxCursorBytes = 4 << 10
)

var names = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// errNoCursor says that there is none yet, or none that can be read.
var errNoCursor = errors.New("no cursor")

// readCursor returns what writeCursor wrote.
func readCursor(dir, name string) (audit.Mark, error) {
	var m audit.Mark
	text, err := private.ReadFile(filepath.Join(dir, cursorPrefix+name), maxCursorBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return m, errNoCursor
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil || m.File < 1 || m.Offset < 0 || len(m.Hash) != 64 {
		return m, fmt.Errorf("%w: %q is damaged", errNoCursor, cursorPrefix+name)
	}
	return m, nil
}

// writeCursor makes m the cursor: after a crash there is the old one or this one.
func writeCursor(dir, name string, m audit.Mark) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, cursorPrefix+name)
	f, err := private.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return private.SyncDir(dir)
}
