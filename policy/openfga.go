package policy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
)

// OpenFGAConfig names an OpenFGA server and the questions that it is asked. Of a call for
// a system: whether the user USER_TYPE:LOGIN has RELATION to OBJECT_TYPE:SYSTEM. Of a call
// for none: whether they have SERVICE_RELATION to SERVICE_TYPE:SERVICE, and of one for a
// certificate, which is good on every system, CERTIFICATE_RELATION to the same.
type OpenFGAConfig struct {
	// URL is the server's, without a path of its API.
	URL string
	// Store is the id of the store (a ULID). Model, also one, pins an authorization
	// model; empty means the store's latest.
	Store, Model string
	// Token, if set, authenticates this service to the server. The caller's is never sent.
	Token string
	// Relation, UserType and ObjectType default to "member", "user" and "system".
	Relation, UserType, ObjectType string
	// ServiceType and Service default to "service" and "sallyport", ServiceRelation to
	// "member" and CertificateRelation to "certificate_holder".
	ServiceType, Service, ServiceRelation, CertificateRelation string
	// Timeout bounds a question. Default: 1 s.
	Timeout time.Duration
	// Remember is how long a yes is believed; 0 asks each time. A no never is.
	Remember time.Duration
	// Transport is for TLS of a site's own; nil means that of net/http.
	Transport http.RoundTripper
}

// maxDecision bounds the server's answer, in bytes.
const maxDecision = 64 << 10

var (
	ulidPattern = regexp.MustCompile(`\A[0-9A-HJKMNP-TV-Z]{26}\z`)
	wordPattern = regexp.MustCompile(`\A[A-Za-z0-9_-]{1,50}\z`)
)

func (c OpenFGAConfig) withDefaults() OpenFGAConfig {
	c.Relation, c.UserType = cmp.Or(c.Relation, "member"), cmp.Or(c.UserType, "user")
	c.ObjectType, c.Timeout = cmp.Or(c.ObjectType, "system"), cmp.Or(c.Timeout, time.Second)
	c.ServiceType, c.Service = cmp.Or(c.ServiceType, "service"), cmp.Or(c.Service, "sallyport")
	c.ServiceRelation, c.CertificateRelation = cmp.Or(c.ServiceRelation, "member"), cmp.Or(c.CertificateRelation, "certificate_holder")
	return c
}

func (c OpenFGAConfig) check() error {
	var errs []error
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
		errs = append(errs, fmt.Errorf("url %q is not an http or https URL", c.URL))
	}
	if !ulidPattern.MatchString(c.Store) {
		errs = append(errs, fmt.Errorf("store %q is not a ULID", c.Store))
	}
	if c.Model != "" && !ulidPattern.MatchString(c.Model) {
		errs = append(errs, fmt.Errorf("model %q is not a ULID", c.Model))
	}
	for _, word := range []string{c.Relation, c.UserType, c.ObjectType, c.ServiceType, c.Service, c.ServiceRelation, c.CertificateRelation} {
		if !wordPattern.MatchString(word) {
			errs = append(errs, fmt.Errorf("relation, type or service %q is not 1 to 50 of a-z, A-Z, 0-9, '_' and '-'", word))
		}
	}
	if c.Timeout < 0 || c.Remember < 0 {
		errs = append(errs, errors.New("a time is negative"))
	}
	return errors.Join(errs...)
}

// OpenFGA asks a server. It is safe for concurrent use.
type OpenFGA struct {
	cfg    OpenFGAConfig
	client *http.Client
	flight singleflight.Group
	known  *remembered
}

// NewOpenFGA checks cfg; nothing is sent.
func NewOpenFGA(cfg OpenFGAConfig) (*OpenFGA, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("openfga: %w", err)
	}
	if cfg.Transport == nil { // one of its own, for Close
		cfg.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	client := &http.Client{
		Timeout: cfg.Timeout, Transport: cfg.Transport,
		// A redirect would take the question, and the token, to a server nobody named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &OpenFGA{cfg: cfg, client: client, known: newRemembered(cfg.Remember)}, nil
}

type tuple struct {
	User     string `json:"user"`
	Relation string `json:"relation"`
	Object   string `json:"object"`
}

type question struct {
	Tuple tuple  `json:"tuple_key"`
	Model string `json:"authorization_model_id,omitempty"`
}

// Check says whether a user may use a system. It is true only if the server said so: with
// status 200 and the JSON value true under "allowed". Any other answer that is well-formed
// is false, and everything else an error. Callers who ask the same at the same time share
// one question.
func (o *OpenFGA) Check(ctx context.Context, login, system string) (bool, error) {
	return o.check(ctx, o.toSystem(login, system))
}

// CheckService is Check for calls that are for no system, CheckCertificate that for
// certificates.
func (o *OpenFGA) CheckService(ctx context.Context, login string) (bool, error) {
	return o.check(ctx, o.toService(login, o.cfg.ServiceRelation))
}

// CheckCertificate says whether a user may have a certificate.
func (o *OpenFGA) CheckCertificate(ctx context.Context, login string) (bool, error) {
	return o.check(ctx, o.toService(login, o.cfg.CertificateRelation))
}

func (o *OpenFGA) toSystem(login, system string) tuple {
	return tuple{User: o.cfg.UserType + ":" + login, Relation: o.cfg.Relation, Object: o.cfg.ObjectType + ":" + system}
}

func (o *OpenFGA) toService(login, relation string) tuple {
	return tuple{User: o.cfg.UserType + ":" + login, Relation: relation, Object: o.cfg.ServiceType + ":" + o.cfg.Service}
}

// Probe asks each question once, about nobody in particular, and returns what is wrong
// with those that have no answer: a model that lacks a type or a relation, above all.
func (o *OpenFGA) Probe(ctx context.Context, systems []string) error {
	const nobody = "sallyport-probe"
	asked := []tuple{o.toService(nobody, o.cfg.ServiceRelation), o.toService(nobody, o.cfg.CertificateRelation)}
	if len(systems) > 0 {
		asked = append(asked, o.toSystem(nobody, systems[0]))
	}
	var errs []error
	for _, t := range asked {
		if _, err := o.ask(ctx, t); err != nil {
			errs = append(errs, fmt.Errorf("relation %q to %q: %w", t.Relation, t.Object, err))
		}
	}
	return errors.Join(errs...)
}

func (o *OpenFGA) check(ctx context.Context, t tuple) (bool, error) {
	if o.known.has(t, time.Now()) {
		return true, nil
	}
	// The question outlives a caller who leaves: others may wait for it too.
	done := o.flight.DoChan(t.User+" "+t.Relation+" "+t.Object, func() (any, error) { return o.ask(context.WithoutCancel(ctx), t) })
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case r := <-done:
		allowed, ok := r.Val.(bool)
		return ok && allowed, r.Err
	}
}

func (o *OpenFGA) ask(ctx context.Context, t tuple) (allowed bool, err error) {
	began := time.Now()
	body, err := json.Marshal(question{Tuple: t, Model: o.cfg.Model})
	if err != nil {
		return false, fmt.Errorf("openfga: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost,
		strings.TrimSuffix(o.cfg.URL, "/")+"/stores/"+o.cfg.Store+"/check", bytes.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("openfga: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	if o.cfg.Token != "" {
		r.Header.Set("Authorization", "Bearer "+o.cfg.Token)
	}
	answer, err := o.client.Do(r)
	if err != nil {
		return false, fmt.Errorf("openfga: %w", err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxDecision))
	if err != nil {
		return false, fmt.Errorf("openfga: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return false, fmt.Errorf("openfga answered with status %d%s", answer.StatusCode, codeIn(text))
	}
	var decision struct {
		Allowed *bool `json:"allowed"`
	}
	if json.Unmarshal(text, &decision) != nil || decision.Allowed == nil {
		return false, errors.New("openfga: the answer is no decision")
	}
	if *decision.Allowed {
		o.known.add(t, began)
	}
	return *decision.Allowed, nil
}

var errorCode = regexp.MustCompile(`\A[a-z_]{1,64}\z`)

// codeIn is the name that the server has for an error, for logs. Its text is left alone.
func codeIn(answer []byte) string {
	var told struct {
		Code string `json:"code"`
	}
	if json.Unmarshal(answer, &told) != nil || !errorCode.MatchString(told.Code) {
		return ""
	}
	return " (" + told.Code + ")"
}

// Close closes idle connections.
func (o *OpenFGA) Close() error {
	o.client.CloseIdleConnections()
	return nil
}
