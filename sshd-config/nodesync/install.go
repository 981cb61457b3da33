package nodesync

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// fileMode lets sshd's child processes and administrators read.
const fileMode = 0o644

// differing are the files that are not in place as they should be, in the order of their replacement.
func (r *release) differing(dir string) []string {
	var names []string
	for _, name := range order() {
		path := filepath.Join(dir, name)
		have, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(have, r.files[name]) || !inOrder(path) {
			names = append(names, name)
		}
	}
	return names
}

// inOrder says whether owner, kind and mode are what replace would make.
func inOrder(path string) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode() == fileMode && int64(st.Uid) == int64(os.Geteuid())
}

// replace puts content in a file's place and keeps what was there as NAME.prev.
func replace(cfg Config, name string, content []byte) error {
	path := filepath.Join(cfg.Dir, name)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && !bytes.Equal(old, content) {
		if err := swap(cfg, name+".prev", old); err != nil {
			return err
		}
	}
	return swap(cfg, name, content)
}

// swap writes beside the file, makes that durable, renames, and makes the rename durable.
func swap(cfg Config, name string, content []byte) error {
	path, fresh := filepath.Join(cfg.Dir, name), filepath.Join(cfg.Dir, "."+name+".new")
	cfg.step("write " + name)
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(fileMode)
	}
	cfg.step("fsync " + name)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	cfg.step("rename " + name)
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	cfg.step("fsync folder of " + name)
	d, err := os.Open(cfg.Dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (c Config) step(what string) {
	if c.Step != nil {
		c.Step(what)
	}
}
