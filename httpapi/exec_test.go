package httpapi

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/ca"
	"sallyport/executor"
	"sallyport/identity"
	"sallyport/store/audit"
)

// runs makes a service whose commands end so.
func runs(t testing.TB, result executor.Result, err error) *service {
	t.Helper()
	return start(t, func(c *Config) {
		c.Commands = fakeRunner{func(context.Context, executor.Command) (executor.Result, error) { return result, err }}
	})
}

func TestAnAnswerSaysHowTheCommandEnded(t *testing.T) {
	t.Parallel()
	plainKey := started
	plainKey.CertificateSerial = 0
	for _, c := range []struct {
		name   string
		result executor.Result
	}{
		{"exec-success", executor.Result{Start: started, Stdout: []byte("hello <world> & ü\u2028\n"), Duration: 1500 * time.Millisecond}},
		{"exec-failure", executor.Result{Start: started, ExitCode: 7, Stderr: []byte("no\n"), Truncated: true}},
		{"exec-signal", executor.Result{Start: started, ExitCode: -1, Signal: "KILL", TimedOut: true}},
		{"exec-binary", executor.Result{Start: plainKey, Stdout: []byte("text"), Stderr: []byte{0xff, 0x00}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := runs(t, c.result, nil).do("POST", execPath, `{"command":"x"}`)
			if a.status != http.StatusOK {
				t.Fatalf("status %d: %s", a.status, a.body)
			}
			golden(t, c.name+".golden", a.body)
		})
	}
}

func TestACommandReachesTheExecutorAsItWasWritten(t *testing.T) {
	t.Parallel()
	type seen struct {
		Line, Workdir, Stdin string
		Argv                 []string
		Env                  map[string]string
		Timeout              time.Duration
		MaxOutput            int64
	}
	binary := "\x00\xff\n"
	for _, c := range []struct {
		name, body string
		want       seen
	}{
		{"a line", `{"command":"echo \"ü\" | cat"}`, seen{Line: `echo "ü" | cat`}},
		{"argv", `{"argv":["ls","-l",""]}`, seen{Argv: []string{"ls", "-l", ""}}},
		{
			"everything", `{"command":"x","stdin":"in\n","env":{"A":"1,2","B":""},"workdir":"/tmp","timeout":"1m30s","max_output_bytes":10}`,
			seen{Line: "x", Stdin: "in\n", Env: map[string]string{"A": "1,2", "B": ""}, Workdir: "/tmp", Timeout: 90 * time.Second, MaxOutput: 10},
		},
		{"binary stdin", `{"command":"x","stdin_base64":"` + base64.StdEncoding.EncodeToString([]byte(binary)) + `"}`, seen{Line: "x", Stdin: binary}},
		{"seconds", `{"command":"x","timeout":0.5}`, seen{Line: "x", Timeout: 500 * time.Millisecond}},
		{"empty stdin", `{"command":"x","stdin":""}`, seen{Line: "x"}},
		{"surrogate pair", `{"command":"\ud83d\ude00 \\ud800"}`, seen{Line: "😀 \\ud800"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got seen
			s := start(t, func(cfg *Config) {
				cfg.Commands = fakeRunner{func(_ context.Context, cmd executor.Command) (executor.Result, error) {
					got = seen{cmd.Line, cmd.Workdir, "", cmd.Argv, cmd.Env, cmd.Timeout, cmd.MaxOutput}
					if cmd.Stdin != nil {
						data, err := io.ReadAll(cmd.Stdin)
						got.Stdin = string(data)
						return executor.Result{Start: started}, err
					}
					return executor.Result{Start: started}, nil
				}}
			})
			if a := s.do("POST", execPath, c.body); a.status != http.StatusOK {
				t.Fatalf("status %d: %s", a.status, a.body)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("command (-want +got):\n%s", diff)
			}
		})
	}
}

func TestABadRequestIsRefusedByNameOfItsField(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) {
		c.Commands = fakeRunner{func(context.Context, executor.Command) (executor.Result, error) {
			t.Error("a bad request reached the executor")
			return executor.Result{}, nil
		}}
	})
	for _, c := range []struct {
		name, body  string
		status      int
		code, field string
	}{
		{"empty", ``, 400, "body_malformed", ""},
		{"not JSON", `command=x`, 400, "body_malformed", ""},
		{"a list", `[1]`, 400, "body_malformed", ""},
		{"null", `null`, 400, "body_malformed", ""},
		{"cut off", `{"command":"x"`, 400, "body_malformed", ""},
		{"trailing", `{"command":"x"}{}`, 400, "body_malformed", ""},
		{"twice", `{"command":"x","command":"y"}`, 400, "body_malformed", "command"},
		{"not UTF-8", "{\"command\":\"\xff\"}", 400, "body_malformed", ""},
		{"neither", `{}`, 422, "field_invalid", "command"},
		{"both", `{"command":"x","argv":["y"]}`, 422, "field_invalid", "command"},
		{"empty command", `{"command":""}`, 422, "field_invalid", "command"},
		{"empty argv", `{"argv":[]}`, 422, "field_invalid", "argv"},
		{"number as command", `{"command":1}`, 422, "field_invalid", "command"},
		{"null as command", `{"command":null}`, 422, "field_invalid", "command"},
		{"number in argv", `{"argv":["a",2]}`, 422, "field_invalid", "argv[1]"},
		{"string as argv", `{"argv":"ls"}`, 422, "field_invalid", "argv"},
		{"number in env", `{"command":"x","env":{"A":1}}`, 422, "field_invalid", "env.A"},
		{"env twice", `{"command":"x","env":{"A":"1","A":"2"}}`, 422, "field_invalid", "env"},
		{"list as env", `{"command":"x","env":["A=1"]}`, 422, "field_invalid", "env"},
		{"unknown", `{"command":"x","cwd":"/"}`, 422, "field_invalid", "cwd"},
		{"other case", `{"Command":"x"}`, 422, "field_invalid", "Command"},
		{"both stdins", `{"command":"x","stdin":"","stdin_base64":""}`, 422, "field_invalid", "stdin"},
		{"bad base64", `{"command":"x","stdin_base64":"A"}`, 422, "field_invalid", "stdin_base64"},
		{"sloppy base64", `{"command":"x","stdin_base64":"AB=="}`, 422, "field_invalid", "stdin_base64"},
		{"no time", `{"command":"x","timeout":"soon"}`, 422, "field_invalid", "timeout"},
		{"zero time", `{"command":"x","timeout":0}`, 422, "field_invalid", "timeout"},
		{"null time", `{"command":"x","timeout":null}`, 422, "field_invalid", "timeout"},
		{"negative time", `{"command":"x","timeout":"-1s"}`, 422, "field_invalid", "timeout"},
		{"endless time", `{"command":"x","timeout":1e300}`, 422, "field_invalid", "timeout"},
		{"boolean time", `{"command":"x","timeout":true}`, 422, "field_invalid", "timeout"},
		{"no output", `{"command":"x","max_output_bytes":0}`, 422, "field_invalid", "max_output_bytes"},
		{"much output", `{"command":"x","max_output_bytes":99999999999999999999}`, 422, "field_invalid", "max_output_bytes"},
		{"half output", `{"command":"x","max_output_bytes":1.5}`, 422, "field_invalid", "max_output_bytes"},
		{"half a pair", `{"command":"\ud83d"}`, 422, "field_invalid", "command"},
		{"other half", `{"command":"\ude00 x"}`, 422, "field_invalid", "command"},
		{"two halves", `{"command":"\ud83d\ud83d"}`, 422, "field_invalid", "command"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := s.do("POST", execPath, c.body, "Content-Type", "application/json")
			if p := a.wantProblem(t, c.status, c.code); p.Field != c.field {
				t.Errorf("field %q, want %q", p.Field, c.field)
			}
		})
	}
}

func TestAStreamHasNoOutputLimit(t *testing.T) {
	t.Parallel()
	a := start(t, nil).do("POST", execPath, `{"command":"x","max_output_bytes":5}`, "Accept", mediaNDJSON)
	if p := a.wantProblem(t, 422, "field_invalid"); p.Field != "max_output_bytes" {
		t.Errorf("field %q", p.Field)
	}
}

func TestEveryErrorOfTheExecutorHasItsAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{executor.ErrUnknownSystem, 404, "system_unknown"},
		{&executor.CommandError{Field: "env", Detail: "name is not a name"}, 422, "command_invalid"},
		{executor.ErrBusy, 503, "busy"},
		{executor.ErrUnavailable, 503, "node_unavailable"},
		{executor.ErrHostKey, 502, "host_key_refused"},
		{executor.ErrLoginRefused, 502, "node_login_refused"},
		{executor.ErrNoCredential, 403, "credential_refused"},
		{fmt.Errorf("%w: %w", executor.ErrNoCredential, &ca.RequestError{Code: ca.CodePrincipal, Field: "principals", Detail: "secret"}), 403, "credential_refused"},
		{executor.ErrOutcomeUnknown, 502, "outcome_unknown"},
		{executor.ErrClosed, 503, "shutting_down"},
		{identity.ErrNoLogin, 403, "login_refused"},
		{audit.ErrUnavailable, 503, "audit_unavailable"},
		{ca.ErrUnavailable, 503, "ca_unavailable"},
		{context.DeadlineExceeded, 504, "timeout"},
		{errors.New("dial tcp 10.1.2.3: secret"), 500, "internal"},
	} {
		t.Run(c.code, func(t *testing.T) {
			t.Parallel()
			s := runs(t, executor.Result{}, fmt.Errorf("node login1 has a secret: %w", c.err))
			for _, accept := range []string{mediaJSON, mediaNDJSON} {
				a := s.do("POST", execPath, `{"command":"x"}`, "Accept", accept)
				a.wantProblem(t, c.status, c.code)
				if strings.Contains(a.body, "secret") {
					t.Errorf("internal text leaves: %s", a.body)
				}
				if (a.status == 503) != (a.header.Get("Retry-After") != "") {
					t.Errorf("status %d with Retry-After %q", a.status, a.header.Get("Retry-After"))
				}
			}
			if !strings.Contains(s.log.String(), "login1 has a secret") {
				t.Error("the log does not have the reason")
			}
		})
	}
}

func TestACommandErrorNamesItsFieldAndReason(t *testing.T) {
	t.Parallel()
	s := runs(t, executor.Result{}, &executor.CommandError{Field: "env", Detail: "name is not a name"})
	p := s.do("POST", execPath, `{"command":"x"}`).wantProblem(t, 422, "command_invalid")
	if p.Field != "env" || p.Detail != "name is not a name" {
		t.Errorf("problem %+v", p)
	}
}

func TestSystemsAreListedForTheirCaller(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	golden(t, "systems.golden", s.do("GET", "/v1/systems", "").body)
	golden(t, "system.golden", s.do("GET", "/v1/systems/daint", "").body)
	s.do("GET", "/v1/systems/eiger", "").wantProblem(t, 404, "system_unknown")
	s.do("POST", "/v1/systems/eiger/exec", `{"command":"x"}`).wantProblem(t, 404, "system_unknown")
}

func TestASlashInANameIsPartOfTheName(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, name := range []string{"a%2Fb", "daint%2Fexec", "..%2F..", "%00", "d%61int%20"} {
		s.do("GET", "/v1/systems/"+name, "").wantProblem(t, 404, "system_unknown")
	}
	if a := s.do("GET", "/v1/systems/d%61int", ""); a.status != http.StatusOK {
		t.Errorf("an escaped letter is not that letter: %d", a.status)
	}
}

func TestAClientThatLeavesEndsItsCommand(t *testing.T) {
	t.Parallel()
	for _, accept := range []string{mediaJSON, mediaNDJSON} {
		t.Run(accept, func(t *testing.T) {
			t.Parallel()
			running, ended := make(chan struct{}), make(chan error, 1)
			s := start(t, func(c *Config) {
				c.Commands = fakeRunner{func(ctx context.Context, _ executor.Command) (executor.Result, error) {
					close(running)
					<-ctx.Done()
					ended <- ctx.Err()
					return executor.Result{}, ctx.Err()
				}}
			})
			ctx, leave := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, "POST", s.url+execPath, strings.NewReader(`{"command":"sleep 1000"}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+good)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept", accept)
			go func() {
				<-running
				leave()
			}()
			if resp, err := client.Do(r); err == nil {
				resp.Body.Close()
				t.Fatalf("answer %d to a client that left", resp.StatusCode)
			}
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("command ended with %v", err)
			}
		})
	}
}
