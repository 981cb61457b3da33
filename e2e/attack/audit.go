package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// audit are attacks on the audit log by somebody who may write its folders. They have
// neither the key that signs it, nor what was noted elsewhere.
func audit() []attack {
	tampering := func(name, word string, tamper func(l *auditLog) error) attack {
		return attack{name, "found", func(ctx context.Context, s *site) (string, error) { return s.tamper(ctx, word, tamper) }}
	}
	return []attack{
		tampering("an audit line is edited", "do not have the hash", func(l *auditLog) error {
			l.lines[l.middle] = anotherPerson(l.lines[l.middle])
			return l.write()
		}),
		tampering("the audit chain is computed anew behind an edited line", "signed with another hash", func(l *auditLog) error {
			return l.forge(func(n int, line []byte) []byte {
				if n == l.middle {
					return anotherPerson(line)
				}
				return line
			})
		}),
		tampering("the audit chain is computed anew and signed by another key", "not allowed to sign", (*auditLog).sign),
		tampering("the audit chain is computed anew without its signatures", "was noted with", func(l *auditLog) error {
			return l.forge(func(_ int, line []byte) []byte {
				return bytes.ReplaceAll(line, []byte("audit.checkpoint"), []byte("exec.end"))
			})
		}),
		tampering("the audit log is cut back to an earlier checkpoint", "the end was cut off", func(l *auditLog) error {
			return l.forge(func(n int, line []byte) []byte {
				if n > l.checkpoints[len(l.checkpoints)-2] {
					return nil
				}
				return line
			})
		}),
		tampering("a file of the audit log's archive is removed", "is missing", func(l *auditLog) error {
			return os.Remove(filepath.Join(l.archive, "audit-000001.jsonl.gz"))
		}),
	}
}

// tamper records some events, has a log of them that is good, tampers with it, and says
// whether "audit verify" found it, for the reason that word stands for.
func (s *site) tamper(ctx context.Context, word string, tamper func(*auditLog) error) (string, error) {
	v, err := s.serve(ctx, settings{audit: "sign_interval = \"300ms\"\narchive_dir = \"old\"\narchive_after = \"0s\"\nmax_file_bytes = 65536", more: "[[rates]]\n"})
	if err != nil {
		return "", err
	}
	l := &auditLog{dir: filepath.Join(v.dir, "audit"), archive: filepath.Join(v.dir, "old")}
	if err := l.grow(ctx, v); err != nil {
		return "", err
	}
	if err := errors.Join(v.stop(), l.read()); err != nil {
		return "", err
	}
	note := filepath.Join(v.dir, "noted")
	if err := os.WriteFile(note, l.lines[l.checkpoints[len(l.checkpoints)-1]], 0o600); err != nil {
		return "", err
	}
	verify := []string{"audit", "verify", "--key", filepath.Join(v.dir, "audit_key.pub"), "--checkpoint", note}
	if out, code, err := v.command(ctx, verify...); err != nil || code != 0 {
		return "", fmt.Errorf("the log was not good before: %w\n%s", err, out)
	}
	if err := tamper(l); err != nil {
		return "", err
	}
	out, code, err := v.command(ctx, verify...)
	switch {
	case err != nil:
		return "", err
	case code == 0:
		return "not found", nil
	case code != 1 || !strings.Contains(out, word):
		return strings.ReplaceAll(fmt.Sprintf("%d: %s", code, out), "\n", " | "), nil
	}
	return "found", nil
}

// grow has a person run commands until the archive has a file, and the live files have
// checkpoints with commands between them.
func (l *auditLog) grow(ctx context.Context, v *service) error {
	for ctx.Err() == nil {
		for range 20 {
			a, err := v.exec(ctx, 0, "true")
			if err != nil {
				return err
			}
			if a.status != http.StatusOK {
				return fmt.Errorf("exec: %s", a)
			}
		}
		if _, err := os.Stat(filepath.Join(l.archive, "audit-000001.jsonl.gz")); err != nil {
			continue
		}
		if err := l.read(); err == nil && len(l.checkpoints) > 2 && l.middle > 0 {
			return nil
		}
	}
	return ctx.Err()
}

// anotherPerson is a line of one person as if it was of another.
func anotherPerson(line []byte) []byte {
	return bytes.ReplaceAll(line, []byte(login(0)), []byte(login(1)))
}
