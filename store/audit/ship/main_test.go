package ship

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/store/audit"
)

// The test binary serves as the service that is killed, when these are set.
const (
	childDir    = "SALLYPORT_SHIP_TEST_DIR"
	childKind   = "SALLYPORT_SHIP_TEST_KIND"
	childTarget = "SALLYPORT_SHIP_TEST_TARGET"
	childCA     = "SALLYPORT_SHIP_TEST_CA"
)

func TestMain(m *testing.M) {
	if os.Getenv(childDir) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if err := recordAndShip(); err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
}

// recordAndShip records and ships until it is killed, or ends in order at SIGTERM.
func recordAndShip() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	dir := os.Getenv(childDir)
	log, err := audit.Open(audit.Config{Dir: dir, MaxBytes: 64 << 10})
	if err != nil {
		return err
	}
	t, err := target(os.Getenv(childKind), os.Getenv(childTarget), os.Getenv(childCA))
	if err != nil {
		return err
	}
	s, err := New(Config{Log: log, Dir: dir, Targets: []Target{t}, Logger: discard})
	if err != nil {
		return err
	}
	shipping, stopShipping := context.WithCancel(context.Background())
	defer stopShipping()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(shipping)
	}()
	for ctx.Err() == nil {
		if err := log.Record(ctx, event); err != nil {
			fmt.Fprintln(os.Stderr, err)
		} else {
			fmt.Println("recorded")
		}
		time.Sleep(time.Millisecond)
	}
	stopShipping() // what was recorded last is shipped too
	<-done
	return log.Close()
}

// target is a destination as the tests have it: confirmed often, so that much happens.
func target(kind, address, ca string) (Target, error) {
	if kind == "otlp" {
		return OTLP(OTLPConfig{Name: "there", URL: "https://" + address + "/v1/logs", TLS: TLSConfig{CA: ca}, Resend: 5 * time.Second})
	}
	return Syslog(SyslogConfig{
		Name: "there", Address: address, TLS: TLSConfig{CA: ca}, Facility: 13, MaxMessage: 8192,
		ConfirmEvery: 200 * time.Millisecond, Resend: time.Second, AnyEnd: kind == "gtls", Plain: kind == "plain",
	})
}

func auditDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "audit")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
