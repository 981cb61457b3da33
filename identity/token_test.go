package identity_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/identity"
)

func TestAGoodTokenBecomesItsIdentity(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t)
	now := time.Now().Unix()
	token := f.token(t, goodHeader, f.claims(map[string]any{
		"aud": []string{"other", "sallyport"}, "scope": "openid exec", "scp": []string{"more"}, "azp": "portal", "client_id": "cli",
		"jti": "t-1", "iat": now, "exp": now + 300, "nbf": now,
	}))
	caller, err := verifier.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(caller.Issuer(), caller.Alias(), caller.Subject(), caller.Login(), caller.Client(),
		caller.Scopes(), caller.TokenID(), caller.Expires().Unix()-now, caller.IssuedAt().Unix()-now)
	want := fmt.Sprint(forgedIssuer, "forge", "s-1", "alice", "portal", []string{"openid", "exec", "more"}, "t-1", 300, 0)
	if got != want {
		t.Errorf("identity is %s, want %s", got, want)
	}
	if !caller.Valid() || caller.Bearer() != token || caller.TokenDigest() != identity.TokenDigest(token) {
		t.Errorf("identity %v is not valid, or not of this token", caller)
	}
	if shown := fmt.Sprintf("%v %+v %s %v", caller, caller, caller, caller.LogValue()); strings.Contains(shown, token) {
		t.Errorf("a printed identity holds the token: %s", shown)
	}
}

func TestTokensThatAreNotCompactSignedJWTsAreRefused(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t)
	good := f.token(t, goodHeader, f.claims(nil))
	part := strings.Split(good, ".")
	full := fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, part[1], part[0], part[2])
	for name, token := range map[string]string{
		"nothing":                  "",
		"dots":                     "..",
		"two parts":                part[0] + "." + part[1],
		"four parts":               good + "." + part[2],
		"no signature":             part[0] + "." + part[1] + ".",
		"detached payload":         part[0] + ".." + part[2],
		"encrypted, five parts":    strings.Join([]string{part[0], part[1], part[1], part[1], part[2]}, "."),
		"JSON serialisation":       full,
		"general serialisation":    fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, part[1], part[0], part[2]),
		"a leading space":          " " + good,
		"a trailing line break":    good + "\n",
		"a line break inside":      good[:40] + "\r\n" + good[40:],
		"padding":                  part[0] + "=." + part[1] + "." + part[2],
		"base64 of the other kind": part[0] + "." + part[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(part[2]) + "+/",
		"Bearer in front":          "Bearer " + good,
		"NUL":                      good + "\x00",
		"header is no JSON":        f.token(t, `alg=RS256`, f.claims(nil)),
		"header is a list":         f.token(t, `["RS256"]`, f.claims(nil)),
		"header says alg twice":    f.token(t, `{"alg":"none","alg":"RS256","kid":"k1"}`, f.claims(nil)),
		"header alg is a number":   f.token(t, `{"alg":256,"kid":"k1"}`, f.claims(nil)),
		"header without alg":       f.token(t, `{"kid":"k1"}`, f.claims(nil)),
		"kid is a number":          f.token(t, `{"alg":"RS256","kid":1}`, f.claims(nil)),
		"kid is very long":         f.token(t, `{"alg":"RS256","kid":"`+strings.Repeat("k", 257)+`"}`, f.claims(nil)),
		"kid looks like a path":    f.token(t, `{"alg":"RS256","kid":"../../etc/passwd"}`, f.claims(nil)),
		"kid looks like SQL":       f.token(t, `{"alg":"RS256","kid":"k1' OR '1'='1"}`, f.claims(nil)),
		"typ is a number":          f.token(t, `{"alg":"RS256","kid":"k1","typ":1}`, f.claims(nil)),
		"critical header":          f.token(t, `{"alg":"RS256","kid":"k1","crit":["exp"],"exp":1}`, f.claims(nil)),
		"unencoded payload":        f.unencoded(t),
		"payload is no JSON":       f.token(t, goodHeader, []byte("hello")),
		"payload is a list":        f.token(t, goodHeader, []byte("[]")),
		"payload is null":          f.token(t, goodHeader, []byte("null")),
		"payload is not UTF-8":     f.token(t, goodHeader, []byte(strings.Replace(string(f.claims(nil)), "s-1", "s-\xff", 1))),
		"payload says iss twice":   f.token(t, goodHeader, append([]byte(`{"iss":"https://evil.test",`), f.claims(nil)[1:]...)),
		"payload is very deep":     f.token(t, goodHeader, []byte(strings.Repeat("[", 9000)+strings.Repeat("]", 1000))),
		"signature of another":     newStranger(t).token(t, goodHeader, f.claims(nil)),
		"other payload":            part[0] + "." + encode(f.claims(map[string]any{"preferred_username": "bob"})) + "." + part[2],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, verifier, token, identity.ErrInvalidToken)
		})
	}
	if _, err := verifier.Verify(t.Context(), good); err != nil {
		t.Errorf("the good token gives %v", err)
	}
}

func TestATokenHasOneSpellingOnly(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t)
	good := f.token(t, goodHeader, f.claims(nil))
	// A 256-byte signature ends in a character of which four bits say nothing, so
	// that lenient decoders take 15 more characters for the same.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	at := strings.IndexByte(alphabet, good[len(good)-1])
	for delta := 1; delta <= 15; delta++ {
		refused(t, verifier, good[:len(good)-1]+string(alphabet[at+delta]), identity.ErrInvalidToken)
	}
}

func TestATokenOfMoreThan16KiBIsNotLookedAt(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t)
	overhead := len(f.token(t, goodHeader, f.claims(map[string]any{"pad": ""})))
	fits := f.token(t, goodHeader, f.claims(map[string]any{"pad": strings.Repeat("x", (identity.MaxTokenBytes-overhead)*3/4-3)}))
	if len(fits) > identity.MaxTokenBytes || len(fits) < identity.MaxTokenBytes-16 {
		t.Fatalf("the test's token has %d bytes", len(fits))
	}
	if _, err := verifier.Verify(t.Context(), fits); err != nil {
		t.Errorf("a token of %d bytes gives %v", len(fits), err)
	}
	refused(t, verifier, f.token(t, goodHeader, f.claims(map[string]any{"pad": strings.Repeat("x", 13000)})), identity.ErrInvalidToken)
	refused(t, verifier, strings.Repeat("x", identity.MaxTokenBytes+1), identity.ErrInvalidToken)
}

func TestNoAlgorithmOutsideTheListIsAccepted(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t)
	public, err := x509.MarshalPKIXPublicKey(f.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{
		"DER":      public,
		"PEM":      pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		"modulus":  f.private.N.Bytes(),
		"empty":    {},
		"the JWKS": keySet(t),
	}
	for name, secret := range secrets {
		signed := encode([]byte(`{"alg":"HS256","kid":"k1"}`)) + "." + encode(f.claims(nil))
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(signed))
		t.Run("HS256 with "+name, func(t *testing.T) {
			t.Parallel()
			refused(t, verifier, signed+"."+encode(mac.Sum(nil)), identity.ErrInvalidToken)
		})
	}
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS384", "RS1", "ES256", "EdDSA", "PS256", "dir", "RSA-OAEP", "rs256", "RS256 "} {
		t.Run("a good RS256 signature called "+alg, func(t *testing.T) {
			t.Parallel()
			refused(t, verifier, f.token(t, fmt.Sprintf(`{"alg":%q,"kid":"k1"}`, alg), f.claims(nil)), identity.ErrInvalidToken)
		})
	}
	unsigned := encode([]byte(`{"alg":"none"}`)) + "." + encode(f.claims(nil)) + "."
	refused(t, verifier, unsigned, identity.ErrInvalidToken)
	refused(t, verifier, unsigned+"AA", identity.ErrInvalidToken)

	narrow := f.verifier(t, func(rule *identity.IssuerConfig) { rule.Algorithms = []string{"ES256"} })
	refused(t, narrow, f.token(t, goodHeader, f.claims(nil)), identity.ErrInvalidToken)
}

func TestKeysThatATokenBringsAlongAreNeverUsed(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	f, evil := newForge(t), newStranger(t)
	public := jwkOf(t, "evil", evil.private.Public())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		fmt.Fprintf(w, `{"keys":[%s]}`, public)
	}))
	defer server.Close()
	verifier := f.verifier(t)
	for name, header := range map[string]string{
		"jku":           fmt.Sprintf(`{"alg":"RS256","kid":"evil","jku":%q}`, server.URL),
		"jku, good kid": fmt.Sprintf(`{"alg":"RS256","kid":"k1","jku":%q}`, server.URL),
		"x5u":           fmt.Sprintf(`{"alg":"RS256","kid":"evil","x5u":%q}`, server.URL),
		"jwk":           fmt.Sprintf(`{"alg":"RS256","jwk":%s}`, public),
		"jwk, good kid": fmt.Sprintf(`{"alg":"RS256","kid":"k1","jwk":%s}`, public),
		"x5c":           `{"alg":"RS256","kid":"k1","x5c":["AAAA"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, verifier, evil.token(t, header, f.claims(nil)), identity.ErrInvalidToken)
		})
	}
	// The server itself could be named as issuer: nobody asks it either.
	refused(t, verifier, evil.token(t, goodHeader, f.claims(map[string]any{"iss": server.URL})), identity.ErrInvalidToken)
	if asked.Load() != 0 {
		t.Errorf("the server that the tokens name saw %d requests", asked.Load())
	}
	harmless := f.token(t, fmt.Sprintf(`{"alg":"RS256","kid":"k1","jku":%q}`, server.URL), f.claims(nil))
	if _, err := verifier.Verify(t.Context(), harmless); err != nil {
		t.Errorf("a good token that names a jku gives %v", err)
	}
	if asked.Load() != 0 {
		t.Error("the jku of a good token was fetched")
	}
}

func jwkOf(t *testing.T, kid string, public any) string {
	t.Helper()
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(keySetOf(t, kid, public), &set); err != nil {
		t.Fatal(err)
	}
	return string(set.Keys[0])
}

func TestRegisteredClaimsAreJudged(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix() // when a bubble begins
	invalid, expired := identity.ErrInvalidToken, identity.ErrExpired
	for name, test := range map[string]struct {
		claims map[string]any
		want   error // nil: accepted
	}{
		"no exp":                       {map[string]any{"exp": nil}, invalid},
		"exp is a string":              {map[string]any{"exp": "9999999999"}, invalid},
		"exp is huge":                  {map[string]any{"exp": json.RawMessage("1e30")}, invalid},
		"exp overflows":                {map[string]any{"exp": json.RawMessage("9223372036854775807")}, invalid},
		"exp beyond year 9999":         {map[string]any{"exp": 253402300800}, invalid},
		"exp is negative":              {map[string]any{"exp": -1}, invalid},
		"exp is a list":                {map[string]any{"exp": []int64{now + 600}}, invalid},
		"exp is true":                  {map[string]any{"exp": true}, invalid},
		"exp is a float":               {map[string]any{"exp": float64(now) + 600.9}, nil},
		"exp is zero":                  {map[string]any{"exp": 0}, expired},
		"exp was an hour ago":          {map[string]any{"iat": now - 7200, "exp": now - 3600}, expired},
		"exp was a second ago":         {map[string]any{"exp": now - 1}, expired},
		"exp in 9 s":                   {map[string]any{"exp": now + 9}, expired},
		"exp in 10 s":                  {map[string]any{"exp": now + 10}, nil},
		"expired and for someone else": {map[string]any{"exp": now - 1, "aud": "other"}, invalid},
		"expired and without a login":  {map[string]any{"exp": now - 1, "preferred_username": nil}, expired},
		"no iat":                       {map[string]any{"iat": nil}, invalid},
		"iat is null":                  {map[string]any{"iat": json.RawMessage("null")}, invalid},
		"iat is far ahead":             {map[string]any{"iat": now + 3600, "exp": now + 7200}, invalid},
		"iat beyond the leeway":        {map[string]any{"iat": now + 31}, invalid},
		"iat within the leeway":        {map[string]any{"iat": now + 30}, nil},
		"iat is huge":                  {map[string]any{"iat": json.RawMessage("4611686018427387904")}, invalid},
		"iat is negative":              {map[string]any{"iat": -1}, invalid},
		"nbf is ahead":                 {map[string]any{"nbf": now + 31}, invalid},
		"nbf within the leeway":        {map[string]any{"nbf": now + 30}, nil},
		"nbf is huge":                  {map[string]any{"nbf": json.RawMessage("1e18")}, invalid},
		"nbf is a string":              {map[string]any{"nbf": "now"}, invalid},
		"no aud":                       {map[string]any{"aud": nil}, invalid},
		"aud is empty":                 {map[string]any{"aud": ""}, invalid},
		"aud is an empty list":         {map[string]any{"aud": []string{}}, invalid},
		"aud is another":               {map[string]any{"aud": "account"}, invalid},
		"aud in other case":            {map[string]any{"aud": "Sallyport"}, invalid},
		"aud begins like ours":         {map[string]any{"aud": "sallyport.evil.test"}, invalid},
		"aud is ours in one string":    {map[string]any{"aud": "other sallyport"}, invalid},
		"aud is a number":              {map[string]any{"aud": 1}, invalid},
		"aud is a list of numbers":     {map[string]any{"aud": []any{1, "sallyport"}}, invalid},
		"aud is an object":             {map[string]any{"aud": map[string]any{"sallyport": true}}, invalid},
		"aud lists ours":               {map[string]any{"aud": []string{"a", "sallyport"}}, nil},
		"no iss":                       {map[string]any{"iss": nil}, invalid},
		"iss is a list":                {map[string]any{"iss": []string{forgedIssuer}}, invalid},
		"iss with a slash more":        {map[string]any{"iss": forgedIssuer + "/"}, invalid},
		"iss in other case":            {map[string]any{"iss": "https://Forge.test"}, invalid},
		"iss without s":                {map[string]any{"iss": "http://forge.test"}, invalid},
		"iss is very long":             {map[string]any{"iss": strings.Repeat("x", 9000)}, invalid},
		"no sub":                       {map[string]any{"sub": nil}, invalid},
		"sub is empty":                 {map[string]any{"sub": ""}, invalid},
		"sub is a number":              {map[string]any{"sub": 1}, invalid},
		"sub of 255 bytes":             {map[string]any{"sub": strings.Repeat("s", 255)}, nil},
		"sub of 256 bytes":             {map[string]any{"sub": strings.Repeat("s", 256)}, invalid},
		"sub with a line break":        {map[string]any{"sub": "a\nlevel=ERROR"}, invalid},
		"sub with an escape":           {map[string]any{"sub": "a\x1b[2J"}, invalid},
		"sub in two cases":             {map[string]any{"Sub": "other"}, nil},
		"jti with a line break":        {map[string]any{"jti": "a\nb"}, invalid},
		"jti is a number":              {map[string]any{"jti": 7}, invalid},
		"azp is a list":                {map[string]any{"azp": []string{"a"}}, invalid},
		"client_id is very long":       {map[string]any{"client_id": strings.Repeat("c", 256)}, invalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				verifier := f.verifier(t)
				token := f.token(t, goodHeader, f.claims(test.claims))
				if test.want != nil {
					refused(t, verifier, token, test.want)
				} else if caller, err := verifier.Verify(t.Context(), token); err != nil || !caller.Valid() {
					t.Errorf("error is %v, want none", err)
				}
			})
		})
	}
}

func TestOnlyAnExpiredTokenIsCalledExpired(t *testing.T) {
	t.Parallel()
	if !errors.Is(identity.ErrExpired, identity.ErrInvalidToken) {
		t.Error("ErrExpired does not wrap ErrInvalidToken")
	}
	f := newForge(t)
	_, err := f.verifier(t).Verify(t.Context(), f.token(t, goodHeader, f.claims(map[string]any{"aud": "other"})))
	if errors.Is(err, identity.ErrExpired) {
		t.Errorf("%v is an ErrExpired", err)
	}
}

func TestTheLifetimeOfATokenCanBeCapped(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t, func(rule *identity.IssuerConfig) { rule.MaxLifetime = time.Hour })
	now := time.Now().Unix()
	refused(t, verifier, f.token(t, goodHeader, f.claims(map[string]any{"exp": now + 3601, "iat": now})), identity.ErrInvalidToken)
	refused(t, verifier, f.token(t, goodHeader, f.claims(map[string]any{"exp": now + 60, "iat": now - 3600})), identity.ErrInvalidToken)
	if _, err := verifier.Verify(t.Context(), f.token(t, goodHeader, f.claims(map[string]any{"exp": now + 3600, "iat": now}))); err != nil {
		t.Errorf("a token of exactly the longest life gives %v", err)
	}
}

func TestTheTypeHeaderKeepsOtherTokensOut(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	for _, test := range []struct {
		required, header string
		accepted         bool
	}{
		{"", ``, true},
		{"", `,"typ":"JWT"`, true},
		{"", `,"typ":"jwt"`, true},
		{"", `,"typ":"at+jwt"`, true},
		{"", `,"typ":"logout+jwt"`, false},
		{"", `,"typ":"dpop+jwt"`, false},
		{"at+jwt", `,"typ":"at+jwt"`, true},
		{"at+jwt", `,"typ":"AT+JWT"`, true},
		{"at+jwt", `,"typ":"application/at+jwt"`, true},
		{"application/at+jwt", `,"typ":"at+jwt"`, true},
		{"at+jwt", `,"typ":"JWT"`, false},
		{"at+jwt", `,"typ":""`, false},
		{"at+jwt", ``, false},
	} {
		t.Run(fmt.Sprintf("%q for %s", test.required, test.header), func(t *testing.T) {
			t.Parallel()
			verifier := f.verifier(t, func(rule *identity.IssuerConfig) { rule.Type = test.required })
			token := f.token(t, `{"alg":"RS256","kid":"k1"`+test.header+`}`, f.claims(nil))
			if !test.accepted {
				refused(t, verifier, token, identity.ErrInvalidToken)
			} else if _, err := verifier.Verify(t.Context(), token); err != nil {
				t.Error(err)
			}
		})
	}
}
