package sandbox

import (
	"slices"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// allowed are the system calls of a Go program that reads and writes files and talks over
// connections that it makes or accepts. What is not here or in conditional gets EPERM.
// Names that a processor does not have are left out for it.
func allowed() []string {
	return slices.Concat(
		[]string{ // files
			"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2",
			"open", "openat", "openat2", "close", "close_range", "lseek", "fcntl", "flock", "dup", "dup2", "dup3", "pipe", "pipe2",
			"stat", "lstat", "fstat", "newfstatat", "statx", "statfs", "fstatfs", "access", "faccessat", "faccessat2",
			"readlink", "readlinkat", "getdents64", "getcwd", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat",
			"rename", "renameat", "renameat2", "chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat", "umask",
			"truncate", "ftruncate", "fallocate", "fsync", "fdatasync", "sync_file_range", "copy_file_range", "sendfile", "splice", "fadvise64",
		},
		[]string{ // memory; mmap and mprotect are conditional
			"munmap", "mremap", "madvise", "mincore", "brk", "mlock", "mlock2", "mlockall", "munlock", "munlockall", "membarrier",
		},
		[]string{ // threads, signals and time; clone is conditional
			"futex", "futex_waitv", "set_robust_list", "rseq", "gettid", "set_tid_address", "sched_yield", "sched_getaffinity", "exit", "exit_group",
			"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
			"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time",
			"timer_create", "timer_settime", "timer_delete", "setitimer",
		},
		[]string{ // connections; socket is conditional, and bind and listen are over
			"connect", "accept", "accept4", "getsockname", "getpeername", "setsockopt", "getsockopt", "shutdown",
			"sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg",
			"epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "poll", "ppoll", "select", "pselect6",
		},
		[]string{ // what the process asks about itself and the machine
			"getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getgroups", "capget", "getrandom", "uname", "sysinfo",
			"getrlimit", "getrusage", "times",
		})
}

// onlyIf are calls that are allowed with some arguments: with any of the lists that stand
// for a name.
func onlyIf(self int) []seccomp.NameWithConditions {
	const ( // linux/prctl.h; x/sys has no name for the second
		setName = unix.PR_SET_NAME
		setVMA  = 0x53564d41 // Go names its memory by it (runtime, setVMAName)
	)
	pid := uint64(self) //nolint:gosec // a process id is positive
	is := func(name string, argument uint32, values ...uint64) []seccomp.NameWithConditions {
		var list []seccomp.NameWithConditions
		for _, v := range values {
			list = append(list, seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{{Argument: argument, Operation: seccomp.Equal, Value: v}}})
		}
		return list
	}
	bits := func(name string, argument uint32, op seccomp.Operation, value uint64) []seccomp.NameWithConditions {
		return []seccomp.NameWithConditions{{Name: name, Conditions: seccomp.ArgumentConditions{{Argument: argument, Operation: op, Value: value}}}}
	}
	return slices.Concat(
		is("socket", 0, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6),
		is("socketpair", 0, unix.AF_UNIX),
		is("ioctl", 1, unix.TIOCOUTQ, unix.TIOCINQ, unix.TCGETS),
		is("prctl", 0, setName, setVMA),
		is("prlimit64", 0, 0, pid),
		is("kill", 0, pid),
		is("tgkill", 0, pid),
		// New threads, no new processes.
		bits("clone", 0, seccomp.BitsSet, unix.CLONE_THREAD),
		// No memory that becomes code.
		bits("mmap", 2, seccomp.BitsNotSet, unix.PROT_EXEC),
		bits("mprotect", 2, seccomp.BitsNotSet, unix.PROT_EXEC),
	)
}

func callPolicy(self int) (seccomp.Policy, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return seccomp.Policy{}, err
	}
	missing := func(name string) bool {
		_, known := info.SyscallNames[name]
		return !known
	}
	plain := slices.DeleteFunc(allowed(), missing)
	conditional := slices.DeleteFunc(onlyIf(self), func(c seccomp.NameWithConditions) bool { return missing(c.Name) })
	return seccomp.Policy{
		DefaultAction: seccomp.ActionErrno, // EPERM
		Syscalls: []seccomp.SyscallGroup{
			// C libraries make threads by clone where clone3, whose arguments a filter cannot
			// read, is not there.
			{Names: []string{"clone3"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)},
			{Names: plain, NamesWithCondtions: conditional, Action: seccomp.ActionAllow},
		},
	}, nil
}
