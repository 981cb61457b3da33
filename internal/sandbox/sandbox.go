// Package sandbox takes from this process what it does not need while it serves, so that
// an attacker who can have it run code finds little to use.
//
// After [Apply] no thread of the process can start a program, open a listener, gain
// privileges, trace others, or make memory executable (seccomp(2)); it can read and write
// only the folders that it was given (landlock(7)), and can neither signal processes
// outside nor connect to their abstract sockets. Nothing lifts this, and children would
// inherit it.
//
// The threat is code that runs in this process: by a fault in a library, or in ours. The
// caveat: connections to other machines stay possible, and so does all that the service
// itself does with its keys.
//
// Linux only. A kernel lacks some of it: [State] says what is in force.
package sandbox

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Config names files and folders, by paths that exist. What is missing is left out: it
// stays out of reach if it is made later.
type Config struct {
	// Write are folders whose files are read, made, changed, renamed and removed.
	Write []string
	// Read are files and folders that are only read. A file that others replace by
	// rename must be given by its folder, for the rule is about what is there now.
	Read []string
}

// State is what is in force after [Apply].
type State struct {
	// Landlock is the version of the kernel's interface (landlock(7), "ABI"), at most
	// that which is used here; 0 means that the kernel has none, or that it is off.
	Landlock int `json:"landlock"`
	// Seccomp says that system calls are filtered. The process then has no_new_privs.
	Seccomp bool `json:"seccomp"`
}

// Whole says that nothing is missing.
func (s State) Whole() bool { return s.Landlock >= wanted && s.Seccomp }

// LogValue shows the state in a log (slog.LogValuer).
func (s State) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("landlock", s.Landlock), slog.Bool("seccomp", s.Seccomp))
}

// wanted is the first version that has all that is used here: files with truncation and
// ioctl(2), the ports of TCP, and the scopes of signals and abstract sockets. It is in
// Linux 6.12.
const wanted = 6

// Apply restricts this process. A kernel that has only a part of it is no error: State
// says what is in force. An error means that a restriction which the kernel has could not
// be made; some others may be in force then.
func Apply(cfg Config) (State, error) {
	var state State
	version, err := ll.LandlockGetABIVersion()
	if err == nil { // else ENOSYS or EOPNOTSUPP: the kernel has none, or it is off
		state.Landlock = min(version, wanted)
		if err := restrictFiles(cfg); err != nil {
			return State{}, fmt.Errorf("landlock: %w", err)
		}
	}
	if !seccomp.Supported() {
		return state, nil
	}
	if err := filterCalls(); err != nil {
		return state, fmt.Errorf("seccomp: %w", err)
	}
	state.Seccomp = true
	return state, nil
}

const (
	reading landlock.AccessFSSet = ll.AccessFSReadFile | ll.AccessFSReadDir
	// writing has no devices, pipes or links, which the service never makes.
	writing = reading | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir |
		ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSMakeSock
)

// restrictFiles also forbids to execute any file: no rule has that right.
func restrictFiles(cfg Config) error {
	restrict := landlock.V6
	// Ports to connect to are open: an issuer's discovery document may name any.
	restrict.HandledAccessNet = ll.AccessNetBindTCP
	return restrict.BestEffort().Restrict(
		landlock.PathAccess(writing, existing(cfg.Write, true)...),
		landlock.PathAccess(reading, existing(cfg.Read, true)...),
		landlock.PathAccess(ll.AccessFSReadFile, existing(cfg.Read, false)...))
}

// existing are the paths that are there and are folders, or are none. A path that cannot be
// looked at is left out: then it cannot be read either.
func existing(paths []string, folders bool) []string {
	var found []string
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil && info.IsDir() == folders {
			found = append(found, p)
		}
	}
	return found
}

func filterCalls() error {
	runtime.LockOSThread() // no_new_privs is this thread's, and the filter takes it to all
	defer runtime.UnlockOSThread()
	policy, err := callPolicy(os.Getpid())
	if err != nil {
		return err
	}
	return seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy})
}
