package sshtest

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// RunProcess is an Exec function that runs the command with /bin/sh as the user
// of this program and in its home directory, in a process group of its own. A
// signal goes to the whole group, as in sshd. When the client is gone the group
// is killed, which sshd does not do.
func RunProcess(ctx context.Context, s *Session) Exit {
	cmd := exec.Command("/bin/sh", "-c", s.Command) //nolint:noctx // its whole group is ended below
	cmd.Stdout, cmd.Stderr = s.Stdout, s.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if home, err := os.UserHomeDir(); err == nil {
		cmd.Dir = home
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return Exit{Code: 254}
	}
	if err := cmd.Start(); err != nil {
		return Exit{Code: 254}
	}
	// Ends when the command closes its input or the client closes the channel.
	go func() {
		_, _ = io.Copy(stdin, s.Stdin)
		_ = stdin.Close()
	}()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case err := <-done:
			return exitOf(err)
		case name := <-s.Signals:
			if number := unix.SignalNum("SIG" + name); number != 0 {
				_ = syscall.Kill(-cmd.Process.Pid, number) // the group may be gone already
			}
		case <-ctx.Done():
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-done //nolint:errcheck // it was killed
			return Exit{Missing: true}
		}
	}
}

func exitOf(err error) Exit {
	if err == nil {
		return Exit{}
	}
	failed, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return Exit{Code: 254}
	}
	status, ok := failed.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return Exit{Signal: strings.TrimPrefix(unix.SignalName(status.Signal()), "SIG")}
	}
	return Exit{Code: uint32(failed.ExitCode())} //nolint:gosec // 0 to 255
}
