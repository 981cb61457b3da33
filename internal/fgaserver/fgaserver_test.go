package fgaserver_test

import (
	"testing"

	"sallyport/internal/fgaserver"
)

func TestServerStarts(t *testing.T) {
	s, err := fgaserver.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Grant(t.Context(), "alice", "daint"); err != nil {
		t.Error(err)
	}
	if err := s.Grant(t.Context(), "alice", "daint"); err == nil {
		t.Error("a relation was made twice")
	}
	if err := s.Revoke(t.Context(), "alice", "daint"); err != nil {
		t.Error(err)
	}
}
