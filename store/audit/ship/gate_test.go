package ship

import (
	"errors"
	"strings"
	"testing"

	"sallyport/store/audit"
)

// nowhere is a receiver that is not there.
func nowhere(t *testing.T) Target {
	t.Helper()
	to, err := Syslog(SyslogConfig{Name: "nowhere", Address: "127.0.0.1:1", Facility: 13, MaxMessage: 8192})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func shippers(t *testing.T, cfg Config) (*audit.Log, *Shippers) {
	t.Helper()
	cfg.Dir = auditDir(t)
	log, err := audit.Open(audit.Config{Dir: cfg.Dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	cfg.Log, cfg.Logger = log, discard
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return log, s
}

func TestActsAreRefusedBeyondTheBound(t *testing.T) {
	t.Parallel()
	log, s := shippers(t, Config{Targets: []Target{nowhere(t)}, MaxBacklog: 64 << 10, Refuse: true})
	r := s.Recorder(log)
	big := audit.Event{Action: audit.ExecStart, Detail: map[string]string{"command": strings.Repeat("x", audit.MaxLongBytes)}}
	acts := 0
	for ; acts < 1000; acts++ {
		if err := r.Record(t.Context(), big); err != nil {
			if !errors.Is(err, audit.ErrUnavailable) {
				t.Errorf("refused with %v", err)
			}
			break
		}
	}
	if acts < 10 || acts > 20 {
		t.Errorf("%d acts of 4 KiB went before 64 KiB were exceeded", acts)
	}
	for _, a := range []audit.Action{audit.ExecEnd, audit.FileEnd, audit.CertificateIssued, audit.AdminAct} {
		if err := r.Record(t.Context(), audit.Event{Action: a}); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	for _, a := range []audit.Action{audit.FileStart, audit.FileRead, audit.CertificateIntent} {
		if err := r.Record(t.Context(), audit.Event{Action: a}); !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("%s beyond the bound: %v", a, err)
		}
	}
	var later error
	audit.RecordLater(t.Context(), r, big, func(err error) { later = err })
	if !errors.Is(later, audit.ErrUnavailable) {
		t.Errorf("an act recorded later: %v", later)
	}
	if st := s.Status()[0]; st.Bytes < 64<<10 || st.Records != uint64(acts)+4 || st.Shipped != 0 {
		t.Errorf("status %+v", st)
	}
}

func TestAdministratorsHaveAReserveThatEnds(t *testing.T) {
	t.Parallel()
	log, s := shippers(t, Config{Targets: []Target{nowhere(t)}, MaxBacklog: 1 << 20, Refuse: true})
	s.dests[0].shipped.Store(-Reserve - 2<<20) // as if so much were not shipped
	if err := s.Recorder(log).Record(t.Context(), audit.Event{Action: audit.AdminAct}); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("beyond the reserve: %v", err)
	}
	if err := s.Recorder(log).Record(t.Context(), audit.Event{Action: audit.ExecEnd}); err != nil {
		t.Errorf("the end of an act: %v", err)
	}
}

func TestNothingIsRefusedIfTheConfigurationSaysSo(t *testing.T) {
	t.Parallel()
	log, s := shippers(t, Config{Targets: []Target{nowhere(t)}, MaxBacklog: 1, Refuse: false})
	for range 100 {
		if err := s.Recorder(log).Record(t.Context(), event); err != nil {
			t.Fatal(err)
		}
	}
}

// What was shipped counts no more; a cursor of an earlier process is where the next goes on.
func TestTheBacklogIsThatBehindTheCursor(t *testing.T) {
	t.Parallel()
	log, s := shippers(t, Config{Targets: []Target{nowhere(t)}, MaxBacklog: 1 << 20})
	for range 10 {
		if err := log.Record(t.Context(), event); err != nil {
			t.Fatal(err)
		}
	}
	half := log.Mark()
	if err := writeCursor(s.cfg.Dir, "nowhere", half); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := log.Record(t.Context(), event); err != nil {
			t.Fatal(err)
		}
	}
	again, err := New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	st := again.Status()[0]
	if want := log.Mark().Offset - half.Offset; st.Records != 5 || st.Bytes != want {
		t.Errorf("status %+v, want 5 records, %d bytes", st, want)
	}
	if shipped, ok := again.Shipped(); !ok || shipped != half {
		t.Errorf("shipped up to %+v, want %+v", shipped, half)
	}
}
