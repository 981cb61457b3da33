package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"sallyport/ca"
	"sallyport/internal/sandbox"
)

// systemFiles are what the resolver and TLS read while the service runs. /etc as a whole,
// because resolv.conf, hosts and the bundle of CAs are replaced by rename, and a rule is
// about what was there.
func systemFiles(getenv func(string) string) []string {
	files := []string{
		"/etc", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/zoneinfo",
		"/proc/self", "/proc/stat", "/sys/fs/cgroup", "/sys/devices/system/cpu", "/sys/kernel/mm/transparent_hugepage",
	}
	// crypto/x509 heeds both.
	files = append(files, getenv("SSL_CERT_FILE"))
	files = append(files, filepath.SplitList(getenv("SSL_CERT_DIR"))...)
	return append(files, folders("/etc/resolv.conf", "/etc/hosts", "/etc/localtime")...)
}

// folders are those in which files lie, by their names and by what links lead to: whoever
// replaces a file makes a new one there.
func folders(files ...string) []string {
	var found []string
	for _, f := range files {
		if f == "" || ca.IsAgent(f) {
			continue
		}
		found = append(found, filepath.Dir(f))
		if target, err := filepath.EvalSymlinks(f); err == nil {
			found = append(found, filepath.Dir(target))
		}
	}
	return found
}

// confinement is what the service needs of the file system once it has begun.
func (f *File) confinement(config, addressFile string, getenv func(string) string) sandbox.Config {
	var read, write []string
	for _, p := range f.paths() {
		switch {
		case *p.value == "":
		case p.folder:
			write = append(write, *p.value)
		case p.written:
			write = append(write, folders(*p.value)...)
		default:
			read = append(read, folders(*p.value)...)
		}
	}
	write = append(write, folders(addressFile)...)
	return sandbox.Config{Write: write, Read: append(append(read, folders(config)...), systemFiles(getenv)...)}
}

// confine takes from the process what it does not need to serve. Everything that it
// listens on must be open.
func confine(ctx context.Context, mode string, cfg sandbox.Config, log *slog.Logger) error {
	if mode == "off" {
		log.LogAttrs(ctx, slog.LevelWarn, "this process is not confined: server.sandbox is \"off\"")
		return nil
	}
	state, err := sandbox.Apply(cfg)
	switch {
	case err == nil && state.Whole():
		log.LogAttrs(ctx, slog.LevelInfo, "this process is confined", slog.Any("sandbox", state))
		return nil
	case mode == "require":
		return errors.Join(errors.New(`server.sandbox is "require", and this kernel lacks a part of it: "on" takes what there is; Linux 6.12 has all`), err)
	case err != nil:
		// A part of it may be in force by now, so that the service might fail later.
		return errors.Join(errors.New(`the process cannot be confined: server.sandbox = "off" serves without it`), err)
	}
	log.LogAttrs(ctx, slog.LevelWarn, "this process is confined in part: the kernel lacks the rest", slog.Any("sandbox", state))
	return nil
}

// unconfined is for a process that does more than serve: the demo starts an sshd.
func unconfined() error { return nil }
