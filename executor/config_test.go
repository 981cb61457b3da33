package executor_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor"
	"sallyport/identity"
)

func TestEveryMistakeInTheConfigurationIsReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good, empty, malformed := filepath.Join(dir, "good"), filepath.Join(dir, "empty"), filepath.Join(dir, "malformed")
	writeFile(t, good, "login1.test "+string(ssh.MarshalAuthorizedKey(newSigner(t).PublicKey())))
	writeFile(t, empty, "\n# nothing\n")
	writeFile(t, malformed, "login1.test ssh-ed25519 AAAA\n")
	system := func(change func(*executor.System)) executor.System {
		s := executor.System{Name: "hpc", Nodes: []string{node1}, KnownHosts: []string{good}}
		change(&s)
		return s
	}
	for name, test := range map[string]struct {
		change func(*executor.Config)
		want   []string
	}{
		"no audit":       {func(c *executor.Config) { c.Audit = nil }, []string{"audit recorder"}},
		"no credentials": {func(c *executor.Config) { c.Credentials = nil }, []string{`system "hpc"`, "credential provider"}},
		"limits":         {func(c *executor.Config) { c.MaxOutput, c.Pool.MaxWaiters, c.Pool.WaitTimeout = -1, -1, -1 }, []string{"max output", "pool limits"}},
		"same name twice": {
			func(c *executor.Config) { c.Systems = append(c.Systems, c.Systems[0]) },
			[]string{`"hpc" is configured twice`},
		},
		"everything else": {func(c *executor.Config) {
			c.Systems = []executor.System{
				system(func(s *executor.System) { s.Name = "a b" }),
				system(func(s *executor.System) { s.Name, s.Nodes = "one", nil }),
				system(func(s *executor.System) {
					s.Name, s.Nodes = "two", []string{"login1", ":22", "login1:0", "login1:99999", node1, node1}
				}),
				system(func(s *executor.System) { s.Name, s.Jump = "three", "jump" }),
				system(func(s *executor.System) { s.Name, s.KnownHosts = "four", nil }),
				system(func(s *executor.System) { s.Name, s.KnownHosts = "five", []string{good, empty} }),
				system(func(s *executor.System) { s.Name, s.KnownHosts = "six", []string{malformed} }),
				system(func(s *executor.System) { s.Name, s.KnownHosts = "seven", []string{filepath.Join(dir, "missing")} }),
				system(func(s *executor.System) { s.Name, s.Logins = "eight", identity.LoginRule{Pattern: "("} }),
				system(func(s *executor.System) { s.Name, s.MaxSessions, s.Grace = "nine", -1, -1 }),
				system(func(s *executor.System) { s.Name, s.DefaultTimeout, s.MaxTimeout = "ten", time.Hour, time.Minute }),
			}
		}, []string{
			`"a b"`, `"one": at least one node`, `"login1" is not`, `":22"`, `"login1:0"`, `"login1:99999"`, `"login1.test:22" is given twice`,
			`"three": jump host`, `"four": at least one known_hosts`, `"five": known_hosts`, "empty", `"six": known_hosts`, "malformed",
			`"seven": known_hosts`, "missing", `"eight": logins`, `"nine": max sessions -1`, "a timeout is negative", `"ten": default timeout`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := executor.Config{
				Systems: []executor.System{system(func(*executor.System) {})}, Credentials: newAuthority(t), Audit: &recorder{},
			}
			test.change(&cfg)
			_, err := executor.New(cfg)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is missing in\n%v", part, err)
				}
			}
		})
	}
}
