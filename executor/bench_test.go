package executor_test

import (
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/executor"
	"sallyport/internal/loginnode"
)

// BenchmarkRun is what the executor itself costs: the node answers at once.
func BenchmarkRun(b *testing.B) {
	s := newSite(b, nil)
	if _, err := s.run("true"); err != nil {
		b.Fatal(err)
	}
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.run("true"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.run("true"); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkSSHD compares Run on a real sshd with x/crypto alone: one connection,
// one session for each command, nothing checked or recorded.
func BenchmarkSSHD(b *testing.B) {
	c := newCluster(b, loginnode.Config{MaxSessions: 64}, func(cfg *executor.Config) { cfg.Systems[0].MaxSessions = 64 })
	c.run(b, executor.Command{Line: "true"})
	verify, err := knownhosts.New(c.KnownHosts())
	if err != nil {
		b.Fatal(err)
	}
	credential, err := c.ca.Credential(b.Context(), c.caller, executor.Node{})
	if err != nil {
		b.Fatal(err)
	}
	raw, err := ssh.Dial("tcp", c.Addr(), &ssh.ClientConfig{
		User: c.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(credential.Signer)}, HostKeyCallback: verify, HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	ways := map[string]func() error{
		"executor": func() error {
			_, err := c.executor.Run(b.Context(), c.caller, "hpc", executor.Command{Line: "true"})
			return err
		},
		"raw": func() error {
			session, err := raw.NewSession()
			if err != nil {
				return err
			}
			_, err = session.Output("true")
			return err
		},
	}
	for _, name := range []string{"raw", "executor"} {
		b.Run(name+"/serial", func(b *testing.B) {
			for b.Loop() {
				if err := ways[name](); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := ways[name](); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
