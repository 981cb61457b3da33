package executor

import (
	"bytes"
	"errors"
	"math"
	"path"
	"strconv"
	"strings"
	"time"
)

// errOddOutput says that a program on the node printed something unexpected.
var errOddOutput = &FileError{Err: ErrUnsupported, Detail: "output of a command is not understood"}

// parseStat reads "MODE SIZE UID GID ATIME MTIME CTIME INODE DEVICE LINKS", MODE in the
// given base. Times may have a fraction.
func parseStat(text string, base int) (FileInfo, error) {
	fields := strings.Split(text, " ")
	const count = 10
	if len(fields) != count {
		return FileInfo{}, errOddOutput
	}
	var errs []error
	number := func(field string, base, bits int) uint64 {
		n, err := strconv.ParseUint(field, base, bits)
		errs = append(errs, err)
		return n
	}
	seconds := func(field string) time.Time {
		whole, _, _ := strings.Cut(field, ".")
		n, err := strconv.ParseInt(whole, 10, 64)
		errs = append(errs, err)
		return time.Unix(n, 0)
	}
	info := FileInfo{
		Mode: uint32(number(fields[0], base, 32)), Size: int64(min(number(fields[1], 10, 64), math.MaxInt64)), //nolint:gosec // bounded
		UID: uint32(number(fields[2], 10, 32)), GID: uint32(number(fields[3], 10, 32)), //nolint:gosec // 32 bits
		Accessed: seconds(fields[4]), Modified: seconds(fields[5]), Changed: seconds(fields[6]),
		Inode: number(fields[7], 10, 64), Device: number(fields[8], 10, 64), Links: number(fields[9], 10, 64),
	}
	if errors.Join(errs...) != nil {
		return FileInfo{}, errOddOutput
	}
	return info, nil
}

// types are the letters of find(1), %y.
var types = map[string]uint32{"f": typeRegular, "d": typeDir, "l": typeLink, "p": 0o010000, "s": 0o140000, "b": 0o060000, "c": 0o020000}

// A listing parses the output of find(1) as it comes: per entry its attributes, name
// and target, each with a NUL byte after it.
type listing struct {
	yield func(FileInfo) error
	rest  []byte
}

func (l *listing) Write(p []byte) (int, error) {
	const longest = 4 * MaxPath // of an entry
	data := append(l.rest, p...)
	for {
		entry, after, ok := cutEntry(data)
		if !ok {
			break
		}
		info, err := parseEntry(entry)
		if err != nil {
			return 0, err
		}
		if err := l.yield(info); err != nil {
			return 0, err
		}
		data = after
	}
	if len(data) > longest {
		return 0, errOddOutput
	}
	l.rest = append(l.rest[:0], data...)
	return len(p), nil
}

// end says whether the last entry was complete.
func (l *listing) end() error {
	if len(l.rest) > 0 {
		return errOddOutput
	}
	return nil
}

func cutEntry(data []byte) (entry [3]string, after []byte, ok bool) {
	for i := range entry {
		field, rest, found := bytes.Cut(data, []byte{0})
		if !found {
			return entry, nil, false
		}
		entry[i], data = string(field), rest
	}
	return entry, data, true
}

func parseEntry(entry [3]string) (FileInfo, error) {
	kind, attributes, _ := strings.Cut(entry[0], " ")
	info, err := parseStat(attributes, 8)
	mode, known := types[kind]
	if err != nil || !known || !below(entry[1]) {
		return FileInfo{}, errOddOutput
	}
	info.Mode |= mode
	info.Name, info.Target = entry[1], entry[2]
	return info, nil
}

// below says whether name is one below a directory.
func below(name string) bool {
	return name != "" && name == path.Clean(name) && name != "." && name != ".." && !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "../")
}

// parseNames reads lines of getent(1): NAME:PASSWORD:ID:...
func parseNames(text string, names map[uint32]string) {
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		const least = 3
		if len(fields) < least {
			continue
		}
		if id, err := strconv.ParseUint(fields[2], 10, 32); err == nil {
			names[uint32(id)] = fields[0]
		}
	}
}
