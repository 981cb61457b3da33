package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"

	"sallyport/ca"
)

// A fileRule is what is asked of a file or folder that decides something.
type fileRule struct {
	secret bool // others must not read it
	above  bool // the folders above it alone: the rest is for those who use it
}

// errPipe says that whoever reads what a setting names would wait without end.
var errPipe = errors.New("is a pipe or a socket: it must be a file")

// checkFiles looks at what the settings name on this machine, and at the configuration file itself. The error lists every mistake.
func (d *decoder) checkFiles(f *File) error {
	wrong := configError{path: d.path}
	add := func(key string, err error) {
		if err != nil {
			wrong.mistakes = append(wrong.mistakes, mistake{d.lines[key], key, err.Error()})
		}
	}
	add("this file", fileRule{}.check(d.path))
	rules := map[string]*fileRule{}
	for _, r := range trustRules() {
		rules[r.key] = r.file
	}
	eachSetting(reflect.ValueOf(f).Elem(), "", func(key string, v reflect.Value, _ reflect.StructField) {
		rule := rules[generic(key)]
		if rule == nil || !f.uses(key) {
			return
		}
		for _, path := range texts(v) {
			if path == "" || path == keyOffline {
				continue
			}
			err := rule.checkSource(path)
			d.pipes = d.pipes || errors.Is(err, errPipe)
			add(key, err)
			if generic(key) == "server.tls_key" && groupReads(path) {
				d.warn(key, "%q can be read by a group: whoever is in it can be this service to clients", path)
			}
		}
	})
	if len(wrong.mistakes) > 0 {
		return &wrong
	}
	return nil
}

func texts(v reflect.Value) []string {
	if v.Kind() == reflect.String {
		return []string{v.String()}
	}
	list, _ := reflect.TypeAssert[[]string](v)
	return list
}

// checkSource is check for a path, or for the socket of an agent.
func (r fileRule) checkSource(path string) error {
	if !ca.IsAgent(path) {
		return r.check(path)
	}
	socket, _, err := ca.ParseAgent(path)
	if err != nil {
		return nil //nolint:nilerr // said already
	}
	return fileRule{above: true}.check(socket)
}

// maxLinks bounds the links on the way to a file, as the kernel does (path_resolution(7)).
const maxLinks = 40

// check walks to a file as the kernel does, and refuses each folder, link and file on the way that somebody else than root and this
// user could change. That something is missing is for its reader to say.
func (r fileRule) check(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	at, left := "/", pathParts(path)
	if err := onlyOurs("/"); err != nil {
		return err
	}
	for links := 0; len(left) > 0; {
		next := filepath.Join(at, left[0])
		left = left[1:]
		if r.above && len(left) == 0 {
			return nil
		}
		info, err := os.Lstat(next)
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			if err := onlyOurs(next); err != nil {
				return err
			}
			if info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0 { // whoever reads it waits without end
				return fmt.Errorf("%q %w", path, errPipe)
			}
			at = next
			continue
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%q leads through too many links", path)
		}
		if err := ownedByUs(next, info); err != nil {
			return err
		}
		target, err := os.Readlink(next)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		left = append(pathParts(target), left...)
	}
	return r.checkSecret(at)
}

// checkSecret looks at what the way led to. A file of root with an access list looks as if its group could read it (systemd.exec(5),
// LoadCredential); what else reads such files asks for more.
func (r fileRule) checkSecret(path string) error {
	info, err := os.Lstat(path)
	if err != nil || !r.secret || !info.Mode().IsRegular() {
		return nil //nolint:nilerr // see check
	}
	mode := info.Mode().Perm()
	switch {
	case mode&0o007 != 0:
		return fmt.Errorf("%q can be read by everyone (mode %04o): chmod 600 %[1]s", path, mode)
	case mode&0o070 != 0 && ownerOf(info) != 0:
		return fmt.Errorf("%q can be read by a group (mode %04o): chmod 600 %[1]s", path, mode)
	}
	return nil
}

// pathParts cuts a path into its parts, ".." included: the kernel goes up from where a link led.
func pathParts(path string) (parts []string) {
	for part := range strings.SplitSeq(path, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}

// onlyOurs refuses a file or folder that somebody else could write, or change the mode of.
func onlyOurs(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	// In a sticky folder such as /tmp only the owner of a file can replace it, and who that is is looked at next.
	sticky := info.IsDir() && info.Mode()&fs.ModeSticky != 0
	if info.Mode().Perm()&0o022 != 0 && !sticky {
		return fmt.Errorf("%q can be written by others (mode %04o): chmod go-w %[1]s", path, info.Mode().Perm())
	}
	return ownedByUs(path, info)
}

func ownedByUs(path string, info fs.FileInfo) error {
	if uid := ownerOf(info); uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("%q belongs to uid %d: it must belong to root or to uid %d, which serves", path, uid, os.Geteuid())
	}
	return nil
}

// ownerOf is the owner's uid; -1 where files have none.
func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

func groupReads(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o077 == 0o040
}
