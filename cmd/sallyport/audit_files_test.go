package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// All that is wrong with the files of the audit log is told at once.
func TestFilesOfTheAuditLogAreLookedInto(t *testing.T) {
	t.Parallel()
	text := writeConfig(t, "no PEM\n")
	empty := writeConfig(t, " \n")
	missing := filepath.Join(t.TempDir(), "missing")
	err := checkAuditFiles(AuditSection{
		SignInterval: time.Minute, SignKey: missing, ArchiveDir: filepath.Join(missing, "archive"),
		Syslog: []AuditSyslogSection{{TLSCA: text}, {TLSCertificate: text, TLSKey: text}, {Plain: true, TLSCA: missing}},
		OTLP:   []AuditOTLPSection{{TLSCA: missing, TokenFile: empty}, {TokenFile: missing}},
	})
	if err == nil {
		t.Fatal("nothing is told")
	}
	for _, want := range []string{"audit.sign_key: ", "audit.archive_dir: ", "audit.syslog[0]: ", "audit.syslog[1]: ", "audit.otlp[0]: ", "audit.otlp[0].token_file: ", "audit.otlp[1].token_file: "} {
		if !strings.Contains("\n"+err.Error(), "\n"+want) {
			t.Errorf("%v\nhas no line %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "syslog[2]") {
		t.Errorf("%v: a receiver without TLS", err)
	}
	if err := checkAuditFiles(AuditSection{SignInterval: time.Minute, ArchiveDir: missing, Syslog: []AuditSyslogSection{{}}}); err != nil {
		t.Errorf("what is good: %v", err)
	}
}
