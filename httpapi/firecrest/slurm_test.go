package firecrest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"sallyport/executor"
	"sallyport/httpapi/firecrest"
	"sallyport/internal/loginnode"
	"sallyport/internal/slurmnode"
)

// theNode is the one node with a Slurm for all tests of the package, started by the
// first that needs it.
var theNode struct {
	once sync.Once
	*slurmnode.Node
	ca  authority
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if theNode.Node != nil {
		if err := theNode.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := closeFileNodes(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func startNode() {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	theNode.ca.signer, theNode.err = newKey()
	if theNode.err != nil {
		return
	}
	theNode.Node, theNode.err = slurmnode.Start(ctx, loginnode.Config{
		Users:             []loginnode.User{{Name: "alice", Groups: []string{"physics"}}, {Name: "bob"}, {Name: "carol", Shell: "/bin/bash"}},
		TrustedUserCAKeys: ssh.MarshalAuthorizedKey(theNode.ca.signer.PublicKey()),
	})
}

// A cluster is a site with a real login node and a real Slurm.
type cluster struct {
	*site
	node *slurmnode.Node
}

func slurm(t *testing.T) *cluster {
	t.Helper()
	return slurmWith(t, nil)
}

// slurmWith is slurm with storage for transfers.
func slurmWith(t *testing.T, staging firecrest.Staging) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start a Slurm with users of its own")
	}
	theNode.once.Do(startNode)
	if theNode.err != nil {
		t.Fatal(theNode.err)
	}
	run, err := executor.New(executor.Config{
		Systems:     []executor.System{{Name: "ClusterA", Nodes: []string{theNode.Addr()}, KnownHosts: []string{theNode.KnownHosts()}}},
		Credentials: theNode.ca, Audit: noAudit{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(run.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	return &cluster{serve(t, firecrest.Config{Commands: run, Staging: staging, Systems: []firecrest.System{{
		Name: "ClusterA", Scheduler: "slurm", SchedulerVersion: theNode.Version, MaxClients: 500,
		ConnectTimeout: 15 * time.Second, IdleTimeout: time.Minute, KeepaliveInterval: 5 * time.Second,
		FileSystems: []firecrest.FileSystem{{Path: theNode.Dir() + "/home", DataType: "users", DefaultWorkDir: true}},
	}}}), theNode.Node}
}

// root runs a script as root on the node.
func (c *cluster) root(script string) string {
	c.t.Helper()
	out, err := c.node.Root(context.Background(), script)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}
