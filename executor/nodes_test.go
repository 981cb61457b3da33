package executor_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor"
	"sallyport/executor/sshtest"
	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store/audit"
)

// twoNodes makes "hpc" a system of two nodes.
func twoNodes(s *site, cfg *executor.Config, nodes map[string]*sshtest.Config) {
	cfg.Systems[0].Nodes = []string{node1, node2}
	nodes[node2] = &sshtest.Config{TrustedCAs: s.ca.trusted, Exec: shell}
}

func TestCallerStaysOnOneNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoNodes)
		used := make(map[string]bool)
		for i := range 12 {
			caller := identitytest.Identity(t, fmt.Sprintf("user%d", i), time.Hour)
			first := ""
			for range 3 {
				r, err := s.executor.Run(t.Context(), caller, "hpc", executor.Command{Line: "true"})
				if err != nil {
					t.Fatal(err)
				}
				if first == "" {
					first = r.Node
				}
				if r.Node != first {
					t.Errorf("user%d moved from %s to %s", i, first, r.Node)
				}
			}
			used[first] = true
		}
		if len(used) != 2 {
			t.Errorf("twelve callers use %v", used)
		}
	})
}

func TestUnreachableNodeIsPassedOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoNodes)
		r, err := s.run("true")
		if err != nil {
			t.Fatal(err)
		}
		home := r.Node
		away := map[string]string{node1: node2, node2: node1}[home]
		server := s.nodes[home]
		delete(s.nodes, home) // dials fail from now on
		server.Cut()
		synctest.Wait()
		for range 5 {
			if r, err := s.run("true"); err != nil || r.Node != away {
				t.Errorf("ran on %q, %v", r.Node, err)
			}
		}
		if n := s.dials(home); n != 2 {
			t.Errorf("the node was dialled %d times", n)
		}
		s.nodes[home] = server
		time.Sleep(16 * time.Second)
		if r, err := s.run("true"); err != nil || r.Node != away {
			t.Errorf("left the node with a connection for %q, %v", r.Node, err)
		}
		time.Sleep(3 * time.Minute) // the connection goes idle
		if r, err := s.run("true"); err != nil || r.Node != home {
			t.Errorf("ran on %q after it was back, %v", r.Node, err)
		}
	})
}

func TestNoNodeReachable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoNodes)
		s.nodes[node1].Freeze()
		s.nodes[node2].Freeze()
		began := time.Now()
		_, err := s.run("true")
		if !errors.Is(err, executor.ErrUnavailable) || time.Since(began) != 30*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if n := len(s.audit.events); n != 0 {
			t.Errorf("%d events for a command that was not started", n)
		}
	})
}

func TestConnectionThatDiesAtTheOpeningIsReplacedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		if _, err := s.run("true"); err != nil {
			t.Fatal(err)
		}
		s.nodes[node1].Freeze()
		result := make(chan error, 1)
		go func() {
			_, err := s.run("true")
			result <- err
		}()
		synctest.Wait() // the request for a channel is under way
		s.nodes[node1].Cut()
		s.nodes[node1].Thaw()
		if err := <-result; err != nil {
			t.Error(err)
		}
		if n := len(s.audit.of(audit.ExecStart)); n != 3 || s.withdrawn() != 1 || s.dials(node1) != 2 {
			t.Errorf("%d starts, %d withdrawn, %d dials", n, s.withdrawn(), s.dials(node1))
		}
	})
}

func TestFullSystemIsBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
			cfg.Systems[0].MaxSessions, cfg.Systems[0].MaxConnections = 2, 2
			cfg.Pool.WaitTimeout = 3 * time.Second
		})
		for range 4 {
			go func() {
				if _, err := s.run("sleep 1m"); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		began := time.Now()
		if _, err := s.run("true"); !errors.Is(err, executor.ErrBusy) || time.Since(began) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if n := s.nodes[node1].Conns(); n != 2 {
			t.Errorf("%d connections", n)
		}
		time.Sleep(time.Minute)
	})
}

func TestNodeThatGrantsNoSessionIsBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, _ *executor.Config, nodes map[string]*sshtest.Config) {
			nodes[node1].MaxSessions = -1 // every one is refused
		})
		if _, err := s.run("true"); !errors.Is(err, executor.ErrBusy) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRefusedLoginIsNotTriedAgainAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoNodes)
		good := s.ca.signer
		s.ca.signer = newSigner(t)
		for range 5 {
			if _, err := s.run("true"); !errors.Is(err, executor.ErrLoginRefused) {
				t.Errorf("got %v", err)
			}
		}
		if n := s.dials(node1) + s.dials(node2); n != 1 {
			t.Errorf("%d dials", n)
		}
		s.ca.signer = good
		time.Sleep(6 * time.Second)
		if _, err := s.run("true"); err != nil {
			t.Errorf("later: %v", err)
		}
	})
}

func TestCredentialThatWouldBeRefusedIsNotTried(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*ssh.Certificate){
		"no principal":      func(c *ssh.Certificate) { c.ValidPrincipals = nil },
		"another principal": func(c *ssh.Certificate) { c.ValidPrincipals = []string{"bob"} },
		"expired":           func(c *ssh.Certificate) { c.ValidBefore = uint64(time.Now().Unix()) },
		"not yet valid":     func(c *ssh.Certificate) { c.ValidAfter = uint64(time.Now().Unix()) + 1 },
		"host certificate":  func(c *ssh.Certificate) { c.CertType = ssh.HostCert },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, nil)
				s.ca.change = spoil
				if _, err := s.run("true"); !errors.Is(err, executor.ErrNoCredential) {
					t.Errorf("got %v", err)
				}
				if n := len(s.nodes[node1].Logins()); n != 0 {
					t.Errorf("%d logins", n)
				}
			})
		})
	}
}

func TestCredentialErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		down := errors.New("ledger is down")
		s.ca.fail(down)
		if _, err := s.run("true"); !errors.Is(err, executor.ErrUnavailable) || !errors.Is(err, down) {
			t.Errorf("got %v", err)
		}
		s.ca.fail(fmt.Errorf("%w: policy", executor.ErrNoCredential))
		if _, err := s.run("true"); !errors.Is(err, executor.ErrNoCredential) || errors.Is(err, executor.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		s.ca.fail(nil)
		if _, err := s.run("true"); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

// A fixed provider gives everybody the same plain key.
type fixed struct{ signer ssh.Signer }

func (f fixed) Credential(context.Context, identity.Identity, executor.Node) (executor.Credential, error) {
	return executor.Credential{User: "service", Signer: f.signer}, nil
}

func TestPlainKeyOfASystemsOwnProvider(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		key := newSigner(t)
		s := newSite(t, func(_ *site, cfg *executor.Config, nodes map[string]*sshtest.Config) {
			cfg.Systems[0].Credentials = fixed{key}
			nodes[node1].AuthorizedKey = func(user string, k ssh.PublicKey) bool {
				return user == "service" && string(k.Marshal()) == string(key.PublicKey().Marshal())
			}
		})
		if r, err := s.run("true"); err != nil || r.User != "service" || r.CertificateSerial != 0 {
			t.Errorf("result %+v, %v", r, err)
		}
		if s.ca.asked != 0 {
			t.Error("the other provider was asked")
		}
	})
}

func TestPeopleOnOneAccountHaveConnectionsOfTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		for range 2 {
			for _, subject := range []string{"one", "two"} {
				caller := identitytest.IdentityFrom(t, "test", subject, "shared", time.Hour)
				if _, err := s.executor.Run(t.Context(), caller, "hpc", executor.Command{Line: "true"}); err != nil {
					t.Fatal(err)
				}
			}
		}
		logins := s.nodes[node1].Logins()
		if len(logins) != 2 || logins[0].KeyID != "v1:test:one" || logins[1].KeyID != "v1:test:two" {
			t.Errorf("logins %+v", logins)
		}
	})
}

// behindJump puts the node behind a jump host; only that can be dialled.
func behindJump(s *site, cfg *executor.Config, nodes map[string]*sshtest.Config) {
	cfg.Systems[0].Jump = jump
	nodes[jump] = &sshtest.Config{TrustedCAs: s.ca.trusted, Forward: func(_ context.Context, address string) (net.Conn, error) {
		return s.nodes[address].Dial()
	}}
	cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
		if address != jump {
			return nil, errors.New("no route")
		}
		return s.dial(ctx, address)
	}
}

func TestJumpHostConnectionGoesWithTheNodes(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*site){
		"idle":         func(*site) { time.Sleep(3 * time.Minute) },
		"node is cut":  func(s *site) { s.nodes[node1].Cut() },
		"jump is cut":  func(s *site) { s.nodes[jump].Cut() },
		"jump freezes": func(s *site) { s.nodes[jump].Freeze(); time.Sleep(time.Minute); s.nodes[jump].Thaw() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, behindJump)
				for range 2 {
					if r, err := s.run("echo x"); err != nil || string(r.Stdout) != "x" || r.Node != node1 {
						t.Fatalf("result %+v, %v", r, err)
					}
				}
				if a, b := s.nodes[jump].Conns(), s.nodes[node1].Conns(); a != 1 || b != 1 {
					t.Errorf("%d and %d connections", a, b)
				}
				end(s)
				synctest.Wait()
				if a, b := s.nodes[jump].Conns(), s.nodes[node1].Conns(); a != 0 || b != 0 {
					t.Errorf("%d and %d connections are left", a, b)
				}
				if _, err := s.run("true"); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		})
	}
}

func TestJumpHostThatFails(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*site){
		"node is down":      func(s *site) { delete(s.nodes, node1) },
		"node is frozen":    func(s *site) { s.nodes[node1].Freeze() },
		"jump is down":      func(s *site) { delete(s.nodes, jump) },
		"jump is frozen":    func(s *site) { s.nodes[jump].Freeze() },
		"login not trusted": func(s *site) { s.ca.signer = newSigner(s.t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, func(s *site, cfg *executor.Config, nodes map[string]*sshtest.Config) {
					behindJump(s, cfg, nodes)
					nodes[jump].Forward = func(_ context.Context, address string) (net.Conn, error) {
						if s.nodes[address] == nil {
							return nil, errors.New("no route")
						}
						return s.nodes[address].Dial()
					}
				})
				all := []*sshtest.Server{s.nodes[jump], s.nodes[node1]}
				spoil(s)
				_, err := s.run("true")
				want := executor.ErrUnavailable
				if name == "login not trusted" {
					want = executor.ErrLoginRefused
				}
				if !errors.Is(err, want) {
					t.Errorf("got %v", err)
				}
				for _, n := range all {
					n.Thaw()
				}
				synctest.Wait()
				for _, n := range all {
					if n.Conns() != 0 {
						t.Error("a connection is left")
					}
					if err := n.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

func TestSystemsThatACallerMayUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(s *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
			known := filepath.Join(t.TempDir(), "known_hosts")
			writeFile(t, known, "login1.test "+string(ssh.MarshalAuthorizedKey(newSigner(t).PublicKey())))
			cfg.Systems = append(cfg.Systems, executor.System{
				Name: "closed", Nodes: []string{node1}, KnownHosts: []string{known}, Logins: identity.LoginRule{Allow: []string{"bob"}},
			}, executor.System{
				Name: "small", Description: "for tests", Nodes: []string{node1}, KnownHosts: []string{known}, MaxTimeout: time.Minute,
			})
		})
		names := ""
		for _, info := range s.executor.Systems(s.caller) {
			names += info.Name + " "
		}
		if names != "hpc small " {
			t.Errorf("alice may use %q", names)
		}
		info, err := s.executor.System(s.caller, "small")
		if err != nil || info.User != "alice" || info.DefaultTimeout != time.Minute || info.MaxTimeout != time.Minute || info.Description != "for tests" || len(info.Nodes) != 1 {
			t.Errorf("%+v, %v", info, err)
		}
		for name, want := range map[string]error{"closed": identity.ErrNoLogin, "none": executor.ErrUnknownSystem} {
			if _, err := s.executor.System(s.caller, name); !errors.Is(err, want) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := s.executor.Run(t.Context(), s.caller, name, executor.Command{Line: "true"}); !errors.Is(err, want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := s.executor.Run(t.Context(), identity.Identity{}, "hpc", executor.Command{Line: "true"}); !errors.Is(err, identity.ErrInvalidToken) {
			t.Errorf("nobody: %v", err)
		}
		if len(s.executor.Systems(identity.Identity{})) != 0 {
			t.Error("nobody may use systems")
		}
		if s.dials(node1) != 0 {
			t.Error("a node was dialled")
		}
	})
}
