// Sallyport is an SSH certificate authority and command executor for HPC
// centres in one binary: a JSON Web Token goes in, a command runs on a login
// node as that user, and its output comes back.
//
// This package is the only place that knows files, flags, signals, drivers and
// the environment; it wires the others together. Exit codes: 0 for success, 1
// for failure, 2 for wrong usage; "exec" exits as the remote command did.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if err := hardenProcess(); err != nil {
		fmt.Fprintln(os.Stderr, "sallyport: note:", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal cancels ctx; stop gives the second its usual effect, so
	// that an operator can always end the program.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr, os.Getenv, os.Environ()}))
}

// streams is what a command sees of the process.
type streams struct {
	in     io.Reader
	out    io.Writer
	err    io.Writer
	getenv func(string) string
	// environ is all of the environment, as os.Environ has it; it may be missing.
	environ []string
}

const (
	exitFailure = 1
	exitUsage   = 2
)

// An exitError is an error that says nothing: only its number counts.
type exitError int

func (c exitError) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// A usageError is a mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run is the whole program but for the process around it.
func run(ctx context.Context, args []string, s streams) int {
	root := newRoot(s)
	root.SetArgs(args)
	err := refuseMistyped(root, args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	fmt.Fprintf(s.err, "sallyport: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailure
}
