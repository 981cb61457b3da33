package httpapi

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/identity"
)

// Compat serves certificates in the formats of other services, for clients that
// were written for those: FirecREST v2 above all. The zero value serves none.
type Compat struct {
	// SSHKeys serves POST /api/v1/ssh-keys, FirecREST's "SSHService".
	//
	// The service makes the private key and sends it to the client. Whoever reads
	// that answer on its way, in a proxy or in a client's trace is the user until
	// the certificate ends, and neither audit log nor login node can tell. Switch it
	// on only for a client that can do nothing better; the other two ways, DeiC's
	// included, let the private key stay where it was made.
	SSHKeys bool
	// DeiC serves POST /{ca}/sign and POST /{ca}/signJSON, FirecREST's "SSHCA", under
	// this name: 1 to 64 of [A-Za-z0-9._-], the first of them a letter or digit.
	// Empty serves neither.
	DeiC string
	// Profile is the profile of these certificates; empty means "executor", whose
	// certificates run commands and copy files and do nothing else.
	Profile string
}

var compatName = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z`)

func (c Compat) check(certificates bool) error {
	if (c.SSHKeys || c.DeiC != "") && !certificates {
		return errors.New("compat: certificates are not configured")
	}
	if c.DeiC != "" && !compatName.MatchString(c.DeiC) {
		return fmt.Errorf("compat: DeiC name %q is not 1 to 64 of [A-Za-z0-9._-]", c.DeiC)
	}
	return nil
}

func (a *API) compatRoutes() []route {
	var routes []route
	if a.cfg.Compat.SSHKeys {
		routes = append(routes, route{http.MethodPost, "/api/v1/ssh-keys", a.forCaller(opIssue, asJSON(a.makeSSHKey))})
	}
	if a.cfg.Compat.DeiC != "" {
		routes = append(routes,
			route{http.MethodPost, "/{ca}/sign", a.in(a.lanes.public, a.deicText)},
			route{http.MethodPost, "/{ca}/signJSON", a.in(a.lanes.public, a.deicJSON)})
	}
	return routes
}

// sshKeyAnswer is the SSHService's. The certificate stands where one would look
// for the public key; neither text ends with a newline, which FirecREST adds.
type sshKeyAnswer struct {
	SSHKey struct {
		PrivateKey string `json:"privateKey"`
		PublicKey  string `json:"publicKey"`
	} `json:"sshKey"`
}

// makeSSHKey is POST /api/v1/ssh-keys.
func (a *API) makeSSHKey(w http.ResponseWriter, r *http.Request, caller identity.Identity) error {
	body, err := a.readObject(w, r, a.cfg.MaxCertificateBody)
	if err != nil {
		return err
	}
	ttl, username, command := compatDuration(body, "duration"), body.text("username"), forcedCommand(body, "force_command")
	if err := body.finish(); err != nil {
		return err
	}
	if body.has("username") && username != caller.Login() {
		return a.refuseKey(r, caller, &ca.RequestError{
			Code: ca.CodePrincipal, Field: "username", Detail: "The name is not the one that the token stands for.",
		})
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("key for the caller: %w", err)
	}
	sshPublic, err := ssh.NewPublicKey(public)
	if err != nil {
		return fmt.Errorf("key for the caller: %w", err)
	}
	text, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return fmt.Errorf("key for the caller: %w", err)
	}
	cert, err := a.issueCompat(r, caller, sshPublic, ttl, command)
	if err != nil {
		return err
	}
	var answer sshKeyAnswer
	answer.SSHKey.PrivateKey = strings.TrimSpace(string(pem.EncodeToMemory(text)))
	answer.SSHKey.PublicKey = certificateLine(cert)
	writeJSON(w, http.StatusCreated, answer)
	return nil
}

// forcedCommand takes what alone the certificate may run. Neither format has it in the
// original: executors of ours ask so for people who may run no commands.
func forcedCommand(o *object, field string) string {
	command := o.text(field)
	if o.has(field) && command == "" {
		o.refuse(field, "The field is empty.") // an empty variable of a portal must not become an unlimited certificate
	}
	return command
}

// issueCompat makes a certificate for the caller's own login.
func (a *API) issueCompat(r *http.Request, caller identity.Identity, key ssh.PublicKey, ttl time.Duration, command string) (*ssh.Certificate, error) {
	return a.cfg.Certificates.Issue(r.Context(), ca.Request{
		Caller: caller, Profile: a.cfg.Compat.Profile, PublicKey: key, TTL: ttl, ForceCommand: command,
	})
}

func certificateLine(cert *ssh.Certificate) string {
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(cert)))
}

// compatUnits are those of the SSHService, of which FirecREST knows "1min" and
// CSCS's users "1d"; the plural is taken too.
var (
	compatUnits = map[string]time.Duration{
		"s": time.Second, "sec": time.Second, "m": time.Minute, "min": time.Minute,
		"h": time.Hour, "hour": time.Hour, "d": 24 * time.Hour, "day": 24 * time.Hour,
	}
	compatSpan = regexp.MustCompile(`\A([1-9][0-9]{0,4})(s|sec|m|min|h|hour|d|day)s?\z`)
)

// compatDuration takes a time such as "1min"; absent is 0. As with every other
// request, more than the profile's maximum is granted the maximum.
func compatDuration(o *object, field string) time.Duration {
	text := o.text(field)
	if !o.has(field) {
		return 0
	}
	m := compatSpan.FindStringSubmatch(text)
	if m == nil {
		o.refuse(field, `The field must be a whole number with a unit, such as "90s", "1min", "2h" or "1d".`)
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil { // five digits fit
		return 0
	}
	return time.Duration(n) * compatUnits[m[2]]
}
