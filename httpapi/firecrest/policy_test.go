package firecrest_test

import (
	"net/http"
	"strings"
	"testing"

	"sallyport/httpapi/firecrest"
)

// A policy names each call, and the system as it is configured: in whatever case a
// client writes it.
func TestEveryCallHasANameForPolicies(t *testing.T) {
	t.Parallel()
	h, err := firecrest.New(firecrest.Config{Commands: refusing{}, Systems: []firecrest.System{{Name: "Daint"}}})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, name := range firecrest.Operations() {
		kind, _, found := strings.Cut(name, ".")
		if !found || seen[name] || !strings.Contains(" status filesystem transfer compute ", " "+kind+" ") {
			t.Errorf("operation %q has no name of its own", name)
		}
		seen[name] = true
	}
	for _, c := range []struct{ method, path, operation, system string }{
		{"GET", "/status/systems", "status.systems", ""},
		{"GET", "/status/liveness", "", ""},
		{"GET", "/status/DAINT/Nodes/", "status.nodes", "Daint"},
		{"HEAD", "/filesystem/daint/ops/ls", "filesystem.ls", "Daint"},
		{"DELETE", "/filesystem/daint/ops/rm", "filesystem.rm", "Daint"},
		{"POST", "/filesystem/daint/transfer/rm", "", ""}, // another method
		{"DELETE", "/filesystem/daint/transfer/rm", "transfer.rm", "Daint"},
		{"POST", "/compute/daint/jobs", "compute.submit", "Daint"},
		{"GET", "/compute/daint/jobs", "compute.list", "Daint"},
		{"DELETE", "/compute/other/jobs/7", "compute.cancel", "other"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, "http://x"+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		call := h.Find(r)
		if call.Operation != c.operation || call.System != c.system {
			t.Errorf("%s %s is %q on %q, want %q on %q", c.method, c.path, call.Operation, call.System, c.operation, c.system)
		}
		if call.Public == (call.Operation != "") {
			t.Errorf("%s %s: public %v, operation %q", c.method, c.path, call.Public, call.Operation)
		}
	}
}
