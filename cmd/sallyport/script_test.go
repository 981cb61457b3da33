package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/rogpeppe/go-internal/testscript"

	"sallyport/identity/identitytest"
	"sallyport/internal/loginnode"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sallyport":      main,
		"sallyport-dies": dieAtStep,
	})
}

// TestScripts runs the program against a real sshd with users alice and bob, and
// a development identity provider.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			// The race detector would let each short-lived process linger.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Values[siteKey{}] = &site{}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("no such condition")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"site":    startSite,
			"node":    startFurtherNode,
			"trust":   trust,
			"token":   mintToken,
			"prover":  makeProver,
			"waitfor": waitForFile,
			"sshdlog": sshdLog,
			"expand":  expand,
			"sigterm": sendSignal(syscall.SIGTERM),
			"sighup":  sendSignal(syscall.SIGHUP),
		},
	})
}

type siteKey struct{}

// A site is what surrounds a service: an identity provider and a login node.
type site struct {
	issuer *identitytest.Issuer
	node   *loginnode.Node
}

func siteOf(ts *testscript.TestScript) *site {
	s, ok := ts.Value(siteKey{}).(*site)
	if !ok || s.node == nil {
		ts.Fatalf("there is no site yet: use the command site")
	}
	return s
}

// startSite starts an identity provider and a node, and sets $ISSUER, $NODE,
// $NODE_PORT, $KNOWN_HOSTS and $NODE_DIR, the folder of the trust file and the
// revocation list. As root the node has the users alice and bob, else the current
// one; $ALICE is the first of them, $BOB the last. Its arguments are files with
// sshd_config text.
func startSite(ts *testscript.TestScript, _ bool, args []string) {
	s := ts.Value(siteKey{}).(*site)
	var err error
	s.issuer, err = identitytest.Start(identitytest.Config{})
	ts.Check(err)
	ts.Defer(func() { ts.Check(s.issuer.Close()) })
	ts.Setenv("ISSUER", s.issuer.URL())
	s.node = addNode(ts, "", args)
	users := s.node.Users()
	ts.Setenv("ALICE", users[0])
	ts.Setenv("BOB", users[len(users)-1])
}

// startFurtherNode starts one more node: node N [FILE...] sets $NODE with the
// suffix N, and the other variables of a node so too.
func startFurtherNode(ts *testscript.TestScript, _ bool, args []string) {
	addNode(ts, args[0], args[1:])
}

func addNode(ts *testscript.TestScript, suffix string, files []string) *loginnode.Node {
	var cfg loginnode.Config
	for _, file := range files {
		cfg.Extra += ts.ReadFile(file)
	}
	if os.Geteuid() == 0 {
		cfg.Users = []loginnode.User{{Name: "alice"}, {Name: "bob"}}
	}
	node, err := loginnode.Start(context.Background(), cfg)
	ts.Check(err)
	ts.Defer(func() { ts.Check(node.Close()) })
	ts.Setenv("NODE"+suffix, node.Addr())
	ts.Setenv("NODE_PORT"+suffix, node.Addr()[strings.LastIndex(node.Addr(), ":")+1:])
	ts.Setenv("NODE_DIR"+suffix, filepath.Dir(node.TrustedUserCAKeys()))
	ts.Setenv("KNOWN_HOSTS"+suffix, node.KnownHosts())
	return node
}

// trust makes the node trust the CA keys in a file.
func trust(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(siteOf(ts).node.SetTrustedUserCAKeys([]byte(ts.ReadFile(args[0]))))
}

// makeProver writes a private key as JWK and in PEM (FILE.pem), both of mode 0600, and
// sets a variable to the claim "cnf" of tokens that are bound to it: prover VAR FILE.
func makeProver(ts *testscript.TestScript, _ bool, args []string) {
	prover, err := identitytest.NewProver("ES256")
	ts.Check(err)
	cnf, err := json.Marshal(prover.Confirmation())
	ts.Check(err)
	ts.Setenv(args[0], string(cnf))
	text, err := jose.JSONWebKey{Key: prover.Key}.MarshalJSON()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o600))
	der, err := x509.MarshalPKCS8PrivateKey(prover.Key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]+".pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

// mintToken sets a variable to a token: token VAR LOGIN [LIFE] [CLAIM=VALUE...]. A value
// that begins with "{" is JSON.
func mintToken(ts *testscript.TestScript, _ bool, args []string) {
	claims := map[string]any{"preferred_username": args[1], "sub": "sub-" + args[1]}
	life := 10 * time.Minute
	for _, arg := range args[2:] {
		if name, value, ok := strings.Cut(arg, "="); ok {
			claims[name] = value
			if strings.HasPrefix(value, "{") {
				claims[name] = json.RawMessage(value)
			}
			continue
		}
		var err error
		life, err = time.ParseDuration(arg)
		ts.Check(err)
	}
	claims["exp"] = time.Now().Add(life).Unix()
	token, err := siteOf(ts).issuer.Mint(claims)
	ts.Check(err)
	ts.Setenv(args[0], token)
}

// waitForFile waits until a file is there and sets a variable to its first line:
// waitfor VAR FILE.
func waitForFile(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[1])
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(path); err == nil {
			line, _, _ := strings.Cut(string(text), "\n")
			ts.Setenv(args[0], line)
			return
		}
	}
	ts.Fatalf("%s did not appear in 2 minutes", args[1])
}

// sshdLog checks that sshd's log has a line that matches a pattern.
func sshdLog(ts *testscript.TestScript, neg bool, args []string) {
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	log := siteOf(ts).node.Log()
	if pattern.MatchString(log) == neg {
		ts.Fatalf("sshd's log, match %t for %q:\n%s", !neg, args[0], log)
	}
}

// expand copies a file, with $VARIABLES replaced: expand FROM TO.
func expand(ts *testscript.TestScript, _ bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// sendSignal sends a signal to the background command that was started first.
func sendSignal(signal syscall.Signal) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, _ []string) {
		running := ts.BackgroundCmds()
		if len(running) == 0 {
			ts.Fatalf("no command runs in the background")
		}
		ts.Check(running[0].Process.Signal(signal))
	}
}
