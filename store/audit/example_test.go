package audit_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"sallyport/store/audit"
)

// Record first, then act: without a durable record nothing happens.
func Example() {
	parent, err := os.MkdirTemp("", "audit")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(parent)
	dir := filepath.Join(parent, "audit")

	log, err := audit.Open(audit.Config{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := audit.WithRequest(context.Background(), audit.Request{ID: audit.NewRequestID(), SourceIP: "192.0.2.7"})
	err = log.Record(ctx, audit.Event{
		Action: audit.CertificateIntent, Outcome: audit.Unknown,
		Issuer: "campus", Subject: "f3a1", Login: "alice",
		Detail: map[string]string{"serial": "4711"},
	})
	if err != nil {
		fmt.Println("not signed:", err)
		return
	}
	fmt.Println("signed")
	if err := log.Close(); err != nil {
		fmt.Println(err)
	}

	report, err := audit.Verify(dir)
	fmt.Println(report.Files, "file,", report.Events, "event,", err)
	// Output:
	// signed
	// 1 file, 1 event, <nil>
}
