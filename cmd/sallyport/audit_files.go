package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sallyport/ca"
	"sallyport/internal/private"
	"sallyport/store/audit/ship"
)

// checkAuditFiles looks into every file that the audit log needs, and tells all that is wrong.
func checkAuditFiles(a AuditSection) error {
	var errs []error
	fail := func(key string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	if a.SignKey != "" && a.SignInterval > 0 {
		if _, err := ca.OpenKey(a.SignKey, nil); !errors.Is(err, ca.ErrPassphraseNeeded) {
			fail("audit.sign_key", err)
		}
	}
	if a.ArchiveDir != "" {
		fail("audit.archive_dir", checkCanMake(a.ArchiveDir))
	}
	for i, s := range a.Syslog {
		if !s.Plain {
			fail(fmt.Sprintf("audit.syslog[%d]", i), ship.TLSConfig{CA: s.TLSCA, Certificate: s.TLSCertificate, Key: s.TLSKey}.Check())
		}
	}
	for i, s := range a.OTLP {
		fail(fmt.Sprintf("audit.otlp[%d]", i), ship.TLSConfig{CA: s.TLSCA, Certificate: s.TLSCertificate, Key: s.TLSKey}.Check())
		if s.TokenFile != "" {
			token, err := private.ReadFile(s.TokenFile, 16<<10)
			if err == nil && strings.TrimSpace(string(token)) == "" {
				err = fmt.Errorf("%q is empty", s.TokenFile)
			}
			fail(fmt.Sprintf("audit.otlp[%d].token_file", i), err)
		}
	}
	return errors.Join(errs...)
}

// checkCanMake says why a folder can be neither used nor made, and makes none.
func checkCanMake(dir string) error {
	err := private.CheckDir(dir, 0o077)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := unix.Access(parent, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("%q cannot be made: %w", dir, &fs.PathError{Op: "write", Path: parent, Err: err})
	}
	if info, err := os.Stat(parent); err == nil && !info.IsDir() {
		return fmt.Errorf("%q cannot be made: %q is no folder", dir, parent)
	}
	return nil
}
