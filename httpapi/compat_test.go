package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/store/audit"
)

// mustCertificate reads a certificate line and checks what all formats have in
// common.
func mustCertificate(t *testing.T, authority *ca.Authority, text string) *ssh.Certificate {
	t.Helper()
	parsed, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(rest) > 0 {
		t.Fatalf("%q: %v", text, err)
	}
	cert, ok := parsed.(*ssh.Certificate)
	if !ok {
		t.Fatalf("a %T is no certificate", parsed)
	}
	if !slices.Equal(cert.ValidPrincipals, []string{"alice"}) || len(cert.CriticalOptions)+len(cert.Extensions) > 0 {
		t.Errorf("principals %q, options %v, extensions %v", cert.ValidPrincipals, cert.CriticalOptions, cert.Extensions)
	}
	if row, err := authority.Lookup(t.Context(), cert.Serial); err != nil || row.Login != "alice" {
		t.Errorf("ledger %+v, %v", row, err)
	}
	return cert
}

// lifeOf is how long the certificate is still good, in seconds.
func lifeOf(cert *ssh.Certificate) int64 { return int64(cert.ValidBefore) - time.Now().Unix() }

// What FirecREST v2 sends, header for header.
var firecrestHeaders = []string{
	"x-client-type", "api", "x-client-name", "firecrest", "x-client-version", "2.5.6",
	"HeaderKeys.request_id", "0b6d1c52-9c38-4d0a-8d0e-d1b3f6a0e0a1", "HeaderKeys.correlation_id", "c0ffee00-0000-4000-8000-000000000000",
}

func TestSSHServiceAnswersFirecREST(t *testing.T) {
	t.Parallel()
	s, authority := issues(t)
	a := s.do("POST", "/api/v1/ssh-keys", `{"duration": "1min", "username": "alice"}`, firecrestHeaders...)
	if a.status != http.StatusCreated || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v: %s", a.status, a.header, a.body)
	}
	if id := a.header.Get("X-Request-Id"); id != firecrestHeaders[7] {
		t.Errorf("the request has the id %q, not FirecREST's", id)
	}
	var got sshKeyAnswer
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatal(err)
	}
	// FirecREST appends a newline to each.
	if text := got.SSHKey.PrivateKey + got.SSHKey.PublicKey; strings.HasSuffix(got.SSHKey.PrivateKey, "\n") || strings.HasSuffix(text, "\n") {
		t.Errorf("a text ends with a newline: %q", text)
	}
	cert := mustCertificate(t, authority, got.SSHKey.PublicKey+"\n")
	if life := lifeOf(cert); life < 50 || life > 60 {
		t.Errorf("good for %d s, want a minute", life)
	}
	signer, err := ssh.ParsePrivateKey([]byte(got.SSHKey.PrivateKey + "\n"))
	if err != nil || !bytes.Equal(signer.PublicKey().Marshal(), cert.Key.Marshal()) {
		t.Errorf("the private key is not that of the certificate: %v", err)
	}
	for _, secret := range []string{"PRIVATE KEY", strings.Split(got.SSHKey.PrivateKey, "\n")[2], good} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

func TestOpenSSHReadsTheKeyOfTheSSHService(t *testing.T) {
	t.Parallel()
	s, _ := issues(t)
	var got sshKeyAnswer
	if err := json.Unmarshal([]byte(s.do("POST", "/api/v1/ssh-keys", `{}`).body), &got); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(got.SSHKey.PrivateKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	public, err := exec.CommandContext(t.Context(), "ssh-keygen", "-y", "-f", path).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(public), "ssh-ed25519 ") {
		t.Errorf("ssh-keygen -y: %v: %s", err, public)
	}
}

func TestSSHServiceTakesOnlyTheCallersNameAndATime(t *testing.T) {
	t.Parallel()
	s, authority := issues(t)
	for body, want := range map[string]struct {
		status      int
		code, field string
	}{
		`{"username": "bob"}`:                      {403, "principal_not_allowed", "username"},
		`{"username": ""}`:                         {403, "principal_not_allowed", "username"},
		`{"username": "ALICE"}`:                    {403, "principal_not_allowed", "username"},
		`{"username": ["alice"]}`:                  {422, "field_invalid", "username"},
		`{"duration": "-1min"}`:                    {422, "field_invalid", "duration"},
		`{"duration": "0min"}`:                     {422, "field_invalid", "duration"},
		`{"duration": "1 fortnight"}`:              {422, "field_invalid", "duration"},
		`{"duration": "999999d"}`:                  {422, "field_invalid", "duration"},
		`{"duration": 60}`:                         {422, "field_invalid", "duration"},
		`{"duration": "1min", "principal": "x"}`:   {422, "field_invalid", "principal"},
		`{"username": "alice", "username": "bob"}`: {400, "body_malformed", "username"},
	} {
		p := s.do("POST", "/api/v1/ssh-keys", body).wantProblem(t, want.status, want.code)
		if p.Field != want.field {
			t.Errorf("%s: field %q", body, p.Field)
		}
	}
	for row, err := range authority.Ledger(t.Context()) {
		t.Errorf("a certificate was issued: %+v, %v", row, err)
	}
	recorded := 0
	for _, e := range s.trail.all() {
		if e.Action == audit.CertificateRefused && e.Login == "alice" && strings.Contains(e.Reason, "username") {
			recorded++
		}
	}
	if recorded != 3 {
		t.Errorf("%d refused names are in the audit log, want 3", recorded)
	}
	for duration, want := range map[string]int64{"90s": 90, "1min": 60, "2 mins": 0, "2mins": 120, "1h": 900, "1d": 900, "99999d": 900} {
		a := s.do("POST", "/api/v1/ssh-keys", `{"duration": "`+duration+`"}`)
		if want == 0 {
			a.wantProblem(t, 422, "field_invalid")
			continue
		}
		var got sshKeyAnswer
		if err := json.Unmarshal([]byte(a.body), &got); err != nil {
			t.Fatal(err)
		}
		if life := lifeOf(mustCertificate(t, authority, got.SSHKey.PublicKey)); life > want || life < want-10 {
			t.Errorf("%q gives %d s, want %d", duration, life, want)
		}
	}
}

func TestDeiCAnswersFirecREST(t *testing.T) {
	t.Parallel()
	s, authority := issues(t)
	key := newKey(t)
	body := jsonOf(t, map[string]string{"PublicKey": key, "OTT": good})
	// FirecREST gives aiohttp a string, which it labels as text; it sends no
	// Authorization header.
	a := s.do("POST", "/demoCA/sign", body, append([]string{"Authorization", "", "Content-Type", "text/plain; charset=utf-8"}, firecrestHeaders...)...)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Fatalf("%d %v: %s", a.status, a.header, a.body)
	}
	cert := mustCertificate(t, authority, a.body)
	if strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert.Key))) != key {
		t.Error("another key was certified")
	}
	if id := a.header.Get("X-Request-Id"); id != firecrestHeaders[7] {
		t.Errorf("the request has the id %q, not FirecREST's", id)
	}

	a = s.do("POST", "/demoCA/signJSON", body, "Authorization", "")
	var got map[string]string
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != http.StatusOK || len(got) != 2 || got["posix_username"] != "alice" {
		t.Fatalf("%d: %s", a.status, a.body)
	}
	mustCertificate(t, authority, got["ssh_cert"])
	if strings.Contains(s.log.String(), good) {
		t.Error("the log has the token")
	}
}

func TestDeiCRefusesBeforeItLooksAtAnythingButTheToken(t *testing.T) {
	t.Parallel()
	s, authority := issues(t)
	key := newKey(t)
	with := func(fields ...string) string {
		m := map[string]string{"PublicKey": key, "OTT": good}
		for i := 0; i < len(fields); i += 2 {
			m[fields[i]] = fields[i+1]
		}
		return jsonOf(t, m)
	}
	for name, c := range map[string]struct {
		path, body  string
		status      int
		code, field string
	}{
		"other CA":            {"/otherCA/sign", with(), 404, "route_unknown", ""},
		"CA escaped":          {"/demo%2FCA/sign", with(), 404, "route_unknown", ""},
		"no token":            {"/demoCA/sign", `{"PublicKey": "x"}`, 401, "token_missing", "OTT"},
		"token is no text":    {"/demoCA/sign", `{"OTT": 7, "PublicKey": "x"}`, 401, "token_missing", "OTT"},
		"bad token, bad rest": {"/demoCA/sign", with("OTT", "forged", "Resource", "x", "PublicKey", "x"), 401, "token_invalid", ""},
		"expired token":       {"/demoCA/signJSON", with("OTT", "tok.expired"), 401, "token_expired", ""},
		"root":                {"/demoCA/sign", with("OTT", "tok.root"), 403, "login_refused", ""},
		"issuer away":         {"/demoCA/sign", with("OTT", "tok.outage"), 503, "issuer_unavailable", ""},
		"no key":              {"/demoCA/sign", `{"OTT": "` + good + `"}`, 422, "field_invalid", "PublicKey"},
		"bad key":             {"/demoCA/sign", with("PublicKey", "ssh-dss AAAA"), 422, "public_key_not_allowed", "public_key"},
		"resource":            {"/demoCA/signJSON", with("Resource", "lumi"), 422, "field_invalid", "Resource"},
		"field":               {"/demoCA/sign", with("Principal", "root"), 422, "field_invalid", "Principal"},
		"no JSON":             {"/demoCA/sign", "PublicKey=x", 400, "body_malformed", ""},
		"too large":           {"/demoCA/sign", with("PublicKey", strings.Repeat("A", 65<<10)), 413, "body_too_large", ""},
	} {
		// The header has a good token: it must not count.
		p := s.do("POST", c.path, c.body).wantProblem(t, c.status, c.code)
		if p.Field != c.field {
			t.Errorf("%s: field %q, want %q", name, p.Field, c.field)
		}
	}
	s.do("GET", "/demoCA/sign", "").wantProblem(t, 405, "method_not_allowed")
	s.do("POST", "/demoCA/sign", with(), "Accept", "image/png").wantProblem(t, 406, "not_acceptable")
	for row, err := range authority.Ledger(t.Context()) {
		t.Errorf("a certificate was issued: %+v, %v", row, err)
	}
	refused := 0
	for _, e := range s.trail.all() {
		if e.Action == audit.TokenRefused {
			refused++
		}
	}
	if refused != 5 {
		t.Errorf("%d refused tokens are in the audit log, want 5", refused)
	}
}

func TestOtherFormatsAreOffByDefault(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Compat = Compat{} })
	for _, path := range []string{"/api/v1/ssh-keys", "/demoCA/sign", "/demoCA/signJSON", "//sign", "/sign"} {
		s.do("POST", path, "{}").wantProblem(t, 404, "route_unknown")
	}
	if doc := s.do("GET", "/openapi.json", "").body; strings.Contains(doc, "/sign") || strings.Contains(doc, "ssh-keys") {
		t.Error("the document has calls that are off")
	}
}

func TestOtherFormatsNeedCertificatesAndAName(t *testing.T) {
	t.Parallel()
	whole := newService(t, nil).api.cfg
	for name, change := range map[string]func(*Config){
		"no CA":      func(c *Config) { c.Certificates = nil },
		"slash":      func(c *Config) { c.Compat.DeiC = "a/b" },
		"brace":      func(c *Config) { c.Compat.DeiC = "{ca}" },
		"dots first": func(c *Config) { c.Compat.DeiC = ".." },
		"long":       func(c *Config) { c.Compat.DeiC = strings.Repeat("a", 65) },
	} {
		cfg := whole
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "compat: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARequestIDOfItsOwnNameWins(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, c := range []struct{ own, firecrest, want string }{
		{"mine", "theirs", "mine"}, {"bad id!", "theirs", "theirs"}, {"", "theirs", "theirs"},
	} {
		a := s.do("GET", "/livez", "", "X-Request-Id", c.own, "HeaderKeys.request_id", c.firecrest)
		if got := a.header.Get("X-Request-Id"); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
	if got := s.do("GET", "/livez", "", "HeaderKeys.request_id", "a b").header.Get("X-Request-Id"); len(got) < 8 || strings.Contains(got, " ") {
		t.Errorf("an unsafe id became %q", got)
	}
}
