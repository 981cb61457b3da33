// Package fgaserver starts a real OpenFGA server on loopback ports, with the model of
// docs/policy.md, for tests. It is built from its pinned
// source when it is missing, which needs the Go module proxy the first time.
package fgaserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sallyport/internal/fromsource"
)

const (
	program = "github.com/openfga/openfga/cmd/openfga"
	version = "v1.22.1"
	// Token is the one that the server wants.
	Token = "only-for-tests"
)

// A Server is a running OpenFGA server.
type Server struct {
	// URL is the server's, Store the id of its only store, Model that of its model.
	URL, Store, Model string

	stop    context.CancelFunc
	process *exec.Cmd
	exited  chan struct{}
	client  *http.Client
}

// Start starts a server with files in dir, and waits until it answers.
func Start(ctx context.Context, dir string) (s *Server, err error) {
	path, err := fromsource.Install(ctx, program, version)
	if err != nil {
		return nil, err
	}
	addresses, err := freeAddresses(ctx)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, "openfga.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has a descriptor of its own
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	s = &Server{URL: "http://" + addresses[0], stop: stop, exited: make(chan struct{}), client: &http.Client{Timeout: 5 * time.Second}}
	s.process = exec.CommandContext(life, path, "run", "--datastore-engine", "memory",
		"--http-addr", addresses[0], "--grpc-addr", addresses[1], "--playground-enabled=false", "--metrics-enabled=false",
		"--authn-method", "preshared", "--authn-preshared-keys", Token)
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		stop()
		return nil, err
	}
	go func() {
		defer close(s.exited)
		_ = s.process.Wait() // killed by Close
	}()
	if err := s.prepare(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("%w; its log is %s", err, log.Name())
	}
	return s, nil
}

// freeAddresses are of ports that nobody has at the moment.
func freeAddresses(ctx context.Context) (addresses [2]string, err error) {
	for i := range addresses {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return addresses, err
		}
		defer l.Close() //nolint:errcheck // it only kept the port
		addresses[i] = l.Addr().String()
	}
	return addresses, nil
}

// model is that of docs/policy.md (OpenFGA's JSON syntax, schema 1.1): users are members
// of systems and of the service, and may have certificates.
const model = `{"schema_version": "1.1", "type_definitions": [{"type": "user"}, {"type": "system",
	"relations": {"member": {"this": {}}},
	"metadata": {"relations": {"member": {"directly_related_user_types": [{"type": "user"}]}}}}, {"type": "service",
	"relations": {"member": {"this": {}}, "certificate_holder": {"this": {}}},
	"metadata": {"relations": {"member": {"directly_related_user_types": [{"type": "user"}]},
		"certificate_holder": {"directly_related_user_types": [{"type": "user"}]}}}}]}`

// OldModel is one without the service: that of sites before it was asked about.
const OldModel = `{"schema_version": "1.1", "type_definitions": [{"type": "user"}, {"type": "system",
	"relations": {"member": {"this": {}}},
	"metadata": {"relations": {"member": {"directly_related_user_types": [{"type": "user"}]}}}}]}`

func (s *Server) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var store struct {
		ID string `json:"id"`
	}
	for {
		err := s.post(ctx, "/stores", `{"name": "sallyport"}`, &store)
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("openfga does not answer: %w", err)
		case <-s.exited:
			return fmt.Errorf("openfga has ended: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.Store = store.ID
	var err error
	s.Model, err = s.Define(ctx, model)
	return err
}

// Define makes another model the latest, and returns its id.
func (s *Server) Define(ctx context.Context, model string) (string, error) {
	var made struct {
		ID string `json:"authorization_model_id"`
	}
	err := s.post(ctx, "/stores/"+s.Store+"/authorization-models", model, &made)
	return made.ID, err
}

// Grant makes a user a member of a system, Revoke ends that.
func (s *Server) Grant(ctx context.Context, user, system string) error {
	return s.write(ctx, "writes", user, "member", "system:"+system)
}

// Revoke undoes Grant.
func (s *Server) Revoke(ctx context.Context, user, system string) error {
	return s.write(ctx, "deletes", user, "member", "system:"+system)
}

// Relate gives a user a relation to the service, Unrelate takes it.
func (s *Server) Relate(ctx context.Context, user, relation string) error {
	return s.write(ctx, "writes", user, relation, "service:sallyport")
}

// Unrelate undoes Relate.
func (s *Server) Unrelate(ctx context.Context, user, relation string) error {
	return s.write(ctx, "deletes", user, relation, "service:sallyport")
}

func (s *Server) write(ctx context.Context, what, user, relation, object string) error {
	body := fmt.Sprintf(`{%q: {"tuple_keys": [{"user": "user:%s", "relation": %q, "object": %q}]}}`, what, user, relation, object)
	return s.post(ctx, "/stores/"+s.Store+"/write", body, &struct{}{})
}

func (s *Server) post(ctx context.Context, path, body string, answer any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+Token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("openfga: %s answers %d: %s", path, resp.StatusCode, text)
	}
	return json.Unmarshal(text, answer)
}

// Freeze makes the server stop answering, Thaw answer again.
func (s *Server) Freeze() error {
	if err := s.process.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for { // the signal reaches its threads one after the other
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.process.Process.Pid))
		if err != nil {
			return err
		}
		if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "T") {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

// Thaw undoes Freeze.
func (s *Server) Thaw() error { return s.process.Process.Signal(syscall.SIGCONT) }

// Close ends the server.
func (s *Server) Close() error {
	s.stop()
	<-s.exited
	s.client.CloseIdleConnections()
	return nil
}
