package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"sallyport/ca"
)

// A role is which parts of the service a process runs.
type role string

const (
	roleAll      role = "all"
	roleCA       role = "ca"
	roleExecutor role = "executor"
)

// String, Set and Type make a role a flag value.
func (r *role) String() string { return string(*r) }
func (r *role) Type() string   { return "role" }

func (r *role) Set(v string) error {
	switch role(v) {
	case roleAll, roleCA, roleExecutor:
		*r = role(v)
		return nil
	}
	return errors.New(`must be "all", "ca" or "executor"`)
}

// getenv overrules what the configuration says about the parts, by the variables
// that overrule it anyhow, so that the file is checked for the role.
func (r role) getenv(next func(string) string) func(string) string {
	var set map[string]string
	switch r {
	case roleCA:
		set = map[string]string{
			"SALLYPORT_CA_ENABLED": "true", "SALLYPORT_EXECUTOR_ENABLED": "false", "SALLYPORT_FIRECREST_ENABLED": "false",
		}
	case roleExecutor:
		set = map[string]string{"SALLYPORT_CA_ENABLED": "false", "SALLYPORT_EXECUTOR_ENABLED": "true"}
	default:
		return next
	}
	return func(name string) string {
		if v, ok := set[name]; ok {
			return v
		}
		return next(name)
	}
}

// check refuses to run an executor that could read the CA key after all: the two
// users are there so that whoever breaks the one process does not have the key.
func (r role) check(f File) error {
	if r != roleExecutor {
		return nil
	}
	path, how := f.CA.Key, uint32(unix.R_OK)
	if ca.IsAgent(path) {
		socket, _, err := ca.ParseAgent(path)
		if err != nil {
			return err
		}
		path, how = socket, unix.W_OK // connect(2) asks for it
	}
	err := unix.Faccessat(unix.AT_FDCWD, path, how, unix.AT_EACCESS)
	switch {
	case err == nil:
		return fmt.Errorf("--role executor: this process, of uid %d, can use the CA key %q; "+
			"run it as a user of its own, with a data_dir of its own", os.Geteuid(), path)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil
	default:
		return fmt.Errorf("--role executor: cannot tell whether the CA key is out of reach: %w", err)
	}
}
