package executor

import (
	"io"
	"time"
)

// A Command is what to run. Exactly one of Line and Argv is set.
type Command struct {
	// Line is given to the user's login shell as it stands, like the argument
	// of ssh(1).
	Line string
	// Argv is a program and its arguments; no shell interprets them. Like Line, it
	// has at most MaxCommandLine bytes, quotes included.
	Argv []string
	// Stdin is the command's standard input; nil means empty. Either way the
	// end of input reaches the command. A reader that fails ends the command, which
	// then does not see an end of input.
	Stdin io.Reader
	// Env is added to the environment that sshd gives. Names match
	// [A-Za-z_][A-Za-z0-9_]*. Values never stand on a command line, where other
	// users of the node could read them; they need a dd(1) on the node.
	Env map[string]string
	// Workdir is where the command starts; empty means the home directory, where a
	// relative path begins too. A leading "~" is refused. If the directory cannot
	// be entered, the exit code is 126.
	Workdir string
	// Own says that Sallyport itself built the command: it says nothing at the start
	// of a login that anybody would miss. See System.Sessions.
	Own bool
	// Timeout ends the command (TERM, grace, KILL); 0 means the system's
	// default, and more than the system's maximum is refused. It counts from when
	// the command was sent: the wait for a session is not in it.
	Timeout time.Duration
	// MaxOutput bounds each of both streams in bytes when they are collected in
	// the Result; 0 means Config.MaxOutput, and more than that is refused. What
	// exceeds it is dropped and Result.Truncated is set; the command is not
	// disturbed.
	MaxOutput int64
	// Stdout and Stderr, when set, receive the streams as they come in, instead
	// of Result. Writes to one of them are never concurrent, but both may be
	// written at the same time. A slow writer slows the command, not other
	// commands; a writer that fails ends the command.
	Stdout, Stderr io.Writer
	// Started, when set, is called once, when the node has accepted the command and
	// before the first byte of output.
	Started func(Start)
}

// Start says where a command was started.
type Start struct {
	ID                string
	System, Node      string
	User              string
	CertificateSerial uint64 // 0 when no certificate was used
}

// A Result is how a command ended. A non-zero exit is a result, not an error.
type Result struct {
	Start
	// ExitCode is the command's exit status, 0 to 255, or -1 when a signal ended it
	// or its end is unknown. A node that reports another status has reported none.
	ExitCode int
	// Signal is the name without "SIG" (RFC 4254 §6.10) when one ended the command:
	// 1 to 32 of A-Z a-z 0-9 @ . -. sshd says "SIG@openssh.com" of those that the RFC
	// does not know. A node that reports another name has reported no end.
	Signal string
	// TimedOut says that the command was ended because its time was over.
	TimedOut bool
	// Stdout and Stderr are complete unless Truncated is set; nil when the
	// command had writers of its own.
	Stdout, Stderr []byte
	Truncated      bool
	Duration       time.Duration
}
