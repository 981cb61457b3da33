package credential_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor"
)

func TestAHostileAnswerIsAnErrorWithoutItsText(t *testing.T) {
	t.Parallel()
	caller := alice(t)
	echo := func(status int, media, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, text, caller.Bearer())
		}
	}
	both := func(h func(status int) http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/demoCA/sign" {
				h(http.StatusOK)(w, r)
				return
			}
			h(http.StatusCreated)(w, r)
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		final  bool // ErrNoCredential
		want   string
	}{
		"HTML":           {both(func(s int) http.HandlerFunc { return echo(s, "text/html", "<html><p>%s</html>") }), true, "answer is not"},
		"JSON of others": {both(func(s int) http.HandlerFunc { return echo(s, "application/json", `{"sshKey": "%s"}`) }), true, "answer is not"},
		"empty":          {both(func(s int) http.HandlerFunc { return echo(s, "text/plain", "%.0s") }), true, "answer is not"},
		"a plain key":    {both(func(s int) http.HandlerFunc { return echo(s, "text/plain", newPublicLine(t)+" %s") }), true, "answer is not"},
		"wrong success":  {echo(http.StatusAccepted, "text/plain", "%s"), false, "answered 202"},
		"unauthorized":   {echo(http.StatusUnauthorized, "text/plain", "%s"), true, "answered 401"},
		"forbidden":      {echo(http.StatusForbidden, "application/problem+json", `{"code":"login_refused","detail":"%s"}`), true, "answered 403 login_refused"},
		"token as code":  {echo(http.StatusForbidden, "application/problem+json", `{"code":"%s"}`), true, "answered 403"},
		"not found":      {echo(http.StatusNotFound, "text/plain", "%s"), false, "answered 404"},
		"broken":         {echo(http.StatusInternalServerError, "text/plain", "%s"), false, "answered 500"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere?token="+caller.Bearer(), http.StatusTemporaryRedirect)
		}, false, "answered 307"},
		"huge": {both(func(s int) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(s)
				block := make([]byte, 64<<10)
				for n := 0; n < 1<<30; n += len(block) { // until the client hangs up
					if _, err := w.Write(block); err != nil {
						return
					}
				}
				t.Error("a client read 1 GiB")
			}
		}), false, "larger than 32768 bytes"},
		"not HTTP": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, caller.Bearer()+"\r\n\r\n")
			_ = conn.Close()
		}, false, "no answer in HTTP"},
		"header without end": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("a", 1<<20))
		}, false, "no answer in HTTP"},
		"cut": {both(func(s int) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000")
				w.WriteHeader(s)
				_, _ = io.WriteString(w, "ssh-ed25519-cert")
			}
		}), false, "no answer in HTTP, or one that broke off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			s.answer = c.answer
			for name, p := range s.providers(s.config()) {
				before := len(s.seen())
				_, err := p.Credential(t.Context(), caller, node)
				if err == nil || errors.Is(err, executor.ErrNoCredential) != c.final || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: got %v, want %q", name, err, c.want)
				}
				for part := range strings.SplitSeq(caller.Bearer(), ".") {
					if strings.Contains(fmt.Sprint(err), part) {
						t.Errorf("%s: the error has the token: %v", name, err)
					}
				}
				if n := len(s.seen()) - before; n != 1 {
					t.Errorf("%s: %d requests were made", name, n)
				}
			}
		})
	}
}

func newPublicLine(t testing.TB) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(newSigner(t).PublicKey())))
}

func TestTheTokenStaysOutOfWhatIsQuotedOfACertificate(t *testing.T) {
	t.Parallel()
	caller := alice(t)
	for name, change := range map[string]func(*ssh.Certificate){
		"principal": func(c *ssh.Certificate) { c.ValidPrincipals = []string{caller.Bearer()} },
		"option":    func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{caller.Bearer(): ""} },
		"extension": func(c *ssh.Certificate) { c.Extensions = map[string]string{caller.Bearer(): ""} },
	} {
		s := newService(t)
		s.change = change
		for kind, p := range s.providers(s.config()) {
			if _, err := p.Credential(t.Context(), caller, node); err == nil || strings.Contains(err.Error(), caller.Bearer()[:40]) || len(err.Error()) > 400 {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
	}
}

func TestASlowServiceIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{"no answer at all": "", "an answer that drips": "ssh-"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			s.answer = func(w http.ResponseWriter, r *http.Request) {
				if begin != "" {
					w.WriteHeader(map[bool]int{true: http.StatusOK, false: http.StatusCreated}[r.URL.Path == "/demoCA/sign"])
					_, _ = io.WriteString(w, begin)
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done() // until the client has left
			}
			cfg := s.config()
			cfg.Timeout = 200 * time.Millisecond
			for kind, p := range s.providers(cfg) {
				began := time.Now()
				_, err := p.Credential(t.Context(), alice(t), node)
				if err == nil || errors.Is(err, executor.ErrNoCredential) || !strings.Contains(err.Error(), "no answer within 200ms") {
					t.Errorf("%s: %v", kind, err)
				}
				if took := time.Since(began); took > 4*time.Second {
					t.Errorf("%s: gave up after %s", kind, took)
				}
			}
		})
	}
}

func TestACallerWhoLeavesEndsTheRequest(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ctx, leave := context.WithCancel(t.Context())
	s.answer = func(_ http.ResponseWriter, r *http.Request) {
		leave()
		<-r.Context().Done()
	}
	for name, p := range s.providers(s.config()) {
		if _, err := p.Credential(ctx, alice(t), node); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
