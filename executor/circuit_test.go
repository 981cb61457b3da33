package executor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor"
	"sallyport/executor/sshtest"
	"sallyport/identity"
	"sallyport/identity/identitytest"
)

// TestDeadNodeTakesFewDials: a hundred callers of a node that swallows everything hear
// within the time of one login, later ones at once, and it is tried ever more rarely.
func TestDeadNodeTakesFewDials(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
			cfg.Systems[0].ConnectTimeout, cfg.Systems[0].MaxHandshakes = 10*time.Second, 8
		})
		s.nodes[node1].Freeze()
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 100 {
			caller := identitytest.Identity(t, fmt.Sprintf("user%d", i), time.Hour)
			wg.Go(func() {
				_, err := s.executor.Run(t.Context(), caller, "hpc", executor.Command{Line: "true"})
				if !errors.Is(err, executor.ErrUnavailable) {
					t.Errorf("caller %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("the last caller heard after %v", took)
		}
		if n := s.dials(node1); n > 8 {
			t.Errorf("%d dials", n)
		}
		time.Sleep(100 * time.Millisecond)
		began = time.Now()
		_, err := s.run("true")
		retry, ok := errors.AsType[*executor.RetryError](err)
		if !ok || !errors.Is(err, executor.ErrUnavailable) || retry.RetryAfter != time.Second || time.Since(began) != 0 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		before := s.dials(node1)
		for began = time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(500 * time.Millisecond) {
			if _, err := s.run("true"); !errors.Is(err, executor.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		if n := s.dials(node1) - before; n < 8 || n > 25 {
			t.Errorf("%d dials in ten minutes", n)
		}
		s.nodes[node1].Thaw()
		time.Sleep(time.Minute)
		if _, err := s.run("true"); err != nil {
			t.Errorf("the node is back: %v", err)
		}
	})
}

// TestCallersSpreadOverNodes: callers without connections go where there is least to do,
// stay where they have one, leave a dead node, and come back to it in time.
func TestCallersSpreadOverNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoNodes)
		used := make(map[string]int)
		var mu sync.Mutex
		all := func(line string) {
			clear(used)
			var wg sync.WaitGroup
			for i := range 40 {
				caller := identitytest.Identity(t, fmt.Sprintf("user%d", i), 12*time.Hour)
				wg.Go(func() {
					r, err := s.executor.Run(t.Context(), caller, "hpc", executor.Command{Line: line})
					if err != nil {
						t.Errorf("user %d: %v", i, err)
					}
					mu.Lock()
					defer mu.Unlock()
					used[r.Node]++
				})
				time.Sleep(time.Millisecond)
			}
			wg.Wait()
		}
		all("sleep 3s")
		if used[node1] < 16 || used[node2] < 16 {
			t.Errorf("callers use %v", used)
		}
		before := [2]int{s.dials(node1), s.dials(node2)}
		all("true")
		if after := [2]int{s.dials(node1), s.dials(node2)}; after != before {
			t.Errorf("callers moved: dials were %v and are %v", before, after)
		}
		dead := s.nodes[node1]
		delete(s.nodes, node1)
		dead.Cut()
		synctest.Wait()
		all("true")
		if used[node2] != 40 {
			t.Errorf("with one node dead callers use %v", used)
		}
		s.nodes[node1] = dead
		time.Sleep(5 * time.Minute) // connections go idle
		all("sleep 3s")
		if used[node1] < 16 || used[node2] < 16 {
			t.Errorf("when it is back callers use %v", used)
		}
	})
}

// stuck are credentials with which a login never ends, for one caller.
type stuck struct {
	executor.CredentialProvider
	login string
}

type stuckSigner struct{ ssh.Signer }

func (stuckSigner) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	time.Sleep(20 * time.Second)
	return nil, errors.New("not in time")
}

func (s stuck) Credential(ctx context.Context, caller identity.Identity, node executor.Node) (executor.Credential, error) {
	c, err := s.CredentialProvider.Credential(ctx, caller, node)
	if caller.Login() == s.login {
		c.Signer = stuckSigner{c.Signer}
	}
	return c, err
}

// TestOneCallersTroubleIsNotTheNodes: a login that hangs once the node was asked about
// the caller, as with a home directory that hangs, keeps nobody else away.
func TestOneCallersTroubleIsNotTheNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(s *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
			cfg.Credentials = stuck{s.ca, "carol"}
		})
		if _, err := s.executor.Run(t.Context(), person(t, "carol"), "hpc", executor.Command{Line: "true"}); !errors.Is(err, executor.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		if _, err := s.run("true"); err != nil {
			t.Errorf("another caller: %v", err)
		}
		if state := s.executor.Stats().Circuits["hpc"][node1]; state.Opened != 0 {
			t.Errorf("circuit %+v", state)
		}
	})
}
