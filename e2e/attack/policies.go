package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// noCommands denies all by which a person can run commands.
const noCommands = `
[firecrest]
enabled = true
[[policy.rules]]
name = "no-commands"
effect = "deny"
operations = ["exec", "certificates.issue", "compute.submit", "compute.attach"]
[[policy.rules]]
name = "rest"
`

// policies are attacks by who may not do what they want.
func policies() []attack {
	return []attack{
		{"a .bashrc uploaded by who may run no commands, and calls to run it", "denied, nothing ran", startupFile},
		{"a denied call in other spellings of method and path", "none served", otherSpellings},
		{"a certificate of each kind, when OpenFGA says no to everything", "403 policy_denied", certificatesWithoutRelation},
		{"a list of systems, when OpenFGA says no to everything", "403 policy_denied", func(ctx context.Context, s *site) (string, error) {
			return s.withoutRelations(ctx, call{path: "/v1/systems"}, call{path: "/status/systems"}, call{path: "/v1/whoami"})
		}},
	}
}

func (s *site) folders() string {
	return fmt.Sprintf("[[systems.firecrest.file_systems]]\npath = %q\ndefault_work_dir = true\n", filepath.Dir(s.node.Home(login(0))))
}

// startupFile uploads startup files, and has every call made that would start a shell.
func startupFile(ctx context.Context, s *site) (string, error) {
	v, err := s.serve(ctx, settings{system: s.folders(), more: noCommands})
	if err != nil {
		return "", err
	}
	token, err := s.token(bashPerson, nil)
	if err != nil {
		return "", err
	}
	home := s.node.Home(login(bashPerson))
	mark := filepath.Join(home, "ran")
	uploaded := []string{".bashrc", ".bash_profile", ".profile"}
	for _, name := range uploaded {
		const boundary = "b0undary"
		form := "--" + boundary + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + name + "\"\r\n\r\ntouch " + mark + "\n\r\n--" + boundary + "--\r\n"
		a, err := v.call(ctx, call{
			path: "/filesystem/node/ops/upload?path=" + home, token: token, body: []byte(form),
			header: http.Header{"Content-Type": {"multipart/form-data; boundary=" + boundary}},
		})
		if err != nil || a.status != http.StatusNoContent {
			return "the upload: " + a.String(), err
		}
	}
	const ops = "/filesystem/node/ops/"
	var answers []string
	for _, c := range []call{
		{path: "/status/node/userinfo"},
		{path: "/status/node/nodes"},
		{path: "/compute/node/jobs"},
		{path: ops + "checksum?path=" + home + "/.bashrc"},
		{path: ops + "file?path=" + home + "/.bashrc"},
		{path: ops + "stat?exact=true&path=" + home},
		{method: http.MethodDelete, path: ops + "rm?path=" + home + "/.ssh"},
		{path: ops + "compress", body: map[string]any{"path": home + "/.bashrc", "targetPath": home + "/a.tgz"}},
		{path: "/filesystem/node/transfer/cp", body: map[string]any{"path": home + "/.bashrc", "targetPath": home + "/b"}},
	} {
		c.token = token
		a, err := v.call(ctx, c)
		if err != nil {
			return "", err
		}
		if c.method != http.MethodDelete { // there may be no such folder
			answers = append(answers, a.String())
		}
	}
	got := strings.Join(slices.Compact(answers), ", ")
	if got == "403 commands_denied" {
		got = "denied"
	}
	_, notRun := os.Stat(mark)
	for _, name := range append(uploaded, "ran") {
		_ = os.Remove(filepath.Join(home, name)) // or it is in the way of other attacks
	}
	if notRun == nil {
		return got + ", it ran", nil
	}
	return got + ", nothing ran", nil
}

// otherSpellings asks for what the policy denies in forms that could lead past it.
func otherSpellings(ctx context.Context, s *site) (string, error) {
	v, err := s.serve(ctx, settings{system: s.folders(), more: strings.Replace(noCommands, "operations = [", `operations = ["whoami", "systems.*", "status.*", "filesystem.*", `, 1)})
	if err != nil {
		return "", err
	}
	token, err := s.token(0, nil)
	if err != nil {
		return "", err
	}
	var served []string
	for _, path := range []string{
		"/v1/whoami", "/v1/whoami/", "//v1/whoami", "/v1//whoami", "/v1/./whoami", "/v1/%77hoami", "/V1/whoami", "/status/../v1/whoami",
		"/v1/systems", "/v1/systems/", "/v1/systems/node", "/v1/systems/NODE", "/v1/systems/n%6fde", "/v1/systems/x%2F..%2Fnode", "/v1/systems/node/exec", "/v1/systems/node%2Fexec",
		"/status/systems", "/STATUS/Systems/", "/status//systems", "/status/%2e%2e/status/systems", "/status/node/userinfo", "/status/NODE/userinfo/", "/status/node/userinfo%2F",
		"/filesystem/node/ops/ls?path=/", "/filesystem/node/ops/ls/?path=/", "/filesystem/Node/OPS/LS?path=/", "/filesystem/node/ops/%6cs?path=/", "/streams/x", "/x/sign",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get", "PROPFIND"} {
			a, err := v.call(ctx, call{method: method, path: path, token: token, header: http.Header{"X-Http-Method-Override": {"GET"}}})
			if err != nil {
				return "", err
			}
			if a.status < http.StatusBadRequest {
				served = append(served, method+" "+path+" "+a.String())
			}
		}
	}
	if len(served) > 0 {
		return strings.Join(served, ", "), nil
	}
	return "none served", nil
}

// certificatesWithoutRelation asks for a certificate in each of the formats.
func certificatesWithoutRelation(ctx context.Context, s *site) (string, error) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	token, err := s.token(0, nil)
	if err != nil {
		return "", err
	}
	deic := map[string]any{"PublicKey": line, "OTT": token}
	return s.withoutRelations(ctx,
		call{path: "/v1/certificates", body: map[string]any{"public_key": line}},
		call{path: "/api/v1/ssh-keys", body: map[string]any{"duration": "1min"}},
		call{path: "/demo/sign", body: deic}, call{path: "/demo/signJSON", body: deic})
}

// withoutRelations makes calls where an OpenFGA server says no to everything, and returns
// the answers that differ.
func (s *site) withoutRelations(ctx context.Context, calls ...call) (string, error) {
	fga := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"allowed":false}`) // who has gone needs no answer
	}))
	defer fga.Close()
	v, err := s.serve(ctx, settings{more: fmt.Sprintf("[firecrest]\nenabled = true\n[ca.compat]\nssh_keys = true\ndeic = \"demo\"\n[policy.openfga]\nurl = %q\nstore = \"01JQ3V00000000000000000000\"\n", fga.URL)})
	if err != nil {
		return "", err
	}
	token, err := s.token(0, nil)
	if err != nil {
		return "", err
	}
	var answers []string
	for _, c := range calls {
		c.token = token
		a, err := v.call(ctx, c)
		if err != nil {
			return "", err
		}
		answers = append(answers, a.String())
	}
	slices.Sort(answers)
	return strings.Join(slices.Compact(answers), ", "), nil
}
