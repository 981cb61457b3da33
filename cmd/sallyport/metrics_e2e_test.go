package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"sallyport/identity"
	"sallyport/internal/loginnode"
	"sallyport/metrics"
)

// freeAddress is one on loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { check(t, l.Close()) }()
	return l.Addr().String()
}

// measured starts a service with a listener for metrics and runs commands.
func measured(t *testing.T) (metricsURL string) {
	t.Helper()
	issuer := startIssuer(t)
	address := freeAddress(t)
	in, trusted := initialize(t)
	in.extra = fmt.Sprintf("[metrics]\nlisten = %q\n", address)
	in.node = startNode(t, loginnode.Config{}, trusted)
	in.serve(t, []identity.IssuerConfig{issuer.IssuerConfig("centre")})
	token, err := issuer.Mint(map[string]any{"sub": in.node.Users()[0]})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"true", "false", "echo hello"} {
		if _, err := in.exec(t.Context(), token, line); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.exec(t.Context(), "no token", "true"); err == nil {
		t.Fatal("a command ran without a token")
	}
	return "http://" + address + "/metrics"
}

func fetch(t *testing.T, address string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestMetricsSayWhatHappenedAndNameNobody(t *testing.T) {
	t.Parallel()
	address := measured(t)
	var status int
	var text string
	eventually(t, "the ends of all commands are on record", func() bool { // nobody waits for them
		status, text = fetch(t, address)
		return strings.Contains(text, `exec.end",outcome="failure"`) && strings.Contains(text, `exec.end",outcome="success",system="daint"} 2`)
	})
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, text)
	}
	for _, want := range []string{
		`sallyport_http_requests_total{code="",method="POST",route="/v1/systems/{system}/exec",status="200"} 3`,
		`sallyport_http_requests_total{code="token_invalid",method="POST",route="/v1/systems/{system}/exec",status="401"} 1`,
		`sallyport_audit_events_total{action="exec.end",outcome="success",system="daint"} 2`,
		`sallyport_audit_events_total{action="exec.end",outcome="failure",system="daint"} 1`,
		`sallyport_audit_events_total{action="certificate.issued",outcome="success",system=""} 1`,
		`sallyport_pool_dials_total{system="daint"} 1`,
		`sallyport_pool_connections{system="daint"} 1`,
		`sallyport_ca_keys{state="active"} 1`,
		`sallyport_issuer_keys{issuer="centre"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	for line := range strings.Lines(text) {
		if strings.Contains(line, "alice") || strings.Contains(line, "echo") {
			t.Errorf("a caller or a command is named: %s", line)
		}
	}
	if status, _ := fetch(t, strings.TrimSuffix(address, "/metrics")+"/v1/admin/status"); status != http.StatusNotFound {
		t.Errorf("the listener for metrics serves /v1/admin/status: %d", status)
	}
}

func TestMetricsFollowTheNamingRulesOfPrometheus(t *testing.T) {
	t.Parallel()
	problems, err := testutil.GatherAndLint(metrics.New("test").Gatherer())
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal(err)
	}
	_, text := fetch(t, measured(t))
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// A prometheus is a real one that scrapes a service.
type prometheus struct{ url string }

func startPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	dir, address := t.TempDir(), freeAddress(t)
	parsed, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 500ms}\nscrape_configs: [{job_name: sallyport, static_configs: [{targets: [%q]}]}]\n", parsed.Host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--log.level=error")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Logf("prometheus: %v\n%s", err, said.String())
		}
	})
	return &prometheus{url: "http://" + address}
}

// query returns how many series an expression has now.
func (p *prometheus) query(ctx context.Context, expression string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/api/v1/query?query="+url.QueryEscape(expression), nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   struct {
			Result []json.RawMessage `json:"result"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if answer.Status != "success" {
		return 0, errors.New(answer.Error)
	}
	return len(answer.Data.Result), nil
}
