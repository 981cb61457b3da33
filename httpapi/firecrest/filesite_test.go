package firecrest_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor"
	"sallyport/httpapi/firecrest"
	"sallyport/internal/loginnode"
)

// A fileNode is a login node that all tests of files share.
type fileNode struct {
	once sync.Once
	*loginnode.Node
	ca  authority
	err error
}

// fileNodes are one for each way to files: over SFTP, and by commands. Both are in
// Zurich.
var fileNodes = map[string]*fileNode{"internal-sftp": {}, "none": {}}

func (n *fileNode) start(sftp string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if n.ca.signer, n.err = newKey(); n.err != nil {
		return
	}
	n.Node, n.err = loginnode.Start(ctx, loginnode.Config{
		SFTP: sftp, TrustedUserCAKeys: ssh.MarshalAuthorizedKey(n.ca.signer.PublicKey()),
		Users: []loginnode.User{{Name: "alice", Groups: []string{"physics"}}, {Name: "bob"}, {Name: "carol", Shell: "/bin/bash"}},
		Setup: "mount --bind /usr/share/zoneinfo/Europe/Zurich /etc/localtime\n",
	})
}

func closeFileNodes() error {
	var errs []error
	for _, n := range fileNodes {
		if n.Node != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// A fileSite is a site with a login node, and a new folder of alice on it.
type fileSite struct {
	*site
	node   *fileNode
	dir    string
	config firecrest.Config
}

const opsPath = "/filesystem/clustera/ops/"

// onFiles runs a test on each kind of node.
func onFiles(t *testing.T, test func(t *testing.T, s *fileSite)) {
	t.Parallel()
	for sftp := range fileNodes {
		t.Run(sftp, func(t *testing.T) {
			t.Parallel()
			test(t, newFileSite(t, sftp, 0))
		})
	}
}

// newFileSite starts a site with a limit for the sizes of files; 0 is the usual one.
func newFileSite(t testing.TB, sftp string, maxFile int64) *fileSite {
	t.Helper()
	return newSlowSite(t, sftp, maxFile, 20*time.Second)
}

// newSlowSite is newFileSite with a limit for the time of a command.
func newSlowSite(t testing.TB, sftp string, maxFile int64, limit time.Duration) *fileSite {
	t.Helper()
	return newStreamSite(t, sftp, maxFile, limit, nil)
}

// newStreamSite is newSlowSite with streams.
func newStreamSite(t testing.TB, sftp string, maxFile int64, limit time.Duration, streaming *firecrest.Streaming) *fileSite {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start a node with users of its own")
	}
	node := fileNodes[sftp]
	node.once.Do(func() { node.start(sftp) })
	if node.err != nil {
		t.Fatal(node.err)
	}
	run, err := executor.New(executor.Config{
		Systems:     []executor.System{{Name: "ClusterA", Nodes: []string{node.Addr()}, KnownHosts: []string{node.KnownHosts()}, DefaultTimeout: limit}},
		Credentials: node.ca, Audit: noAudit{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := run.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	config := firecrest.Config{Commands: run, MaxFile: maxFile, Streaming: streaming, Systems: []firecrest.System{{
		Name: "ClusterA", FileSystems: []firecrest.FileSystem{{Path: node.Dir() + "/home", DataType: "users", DefaultWorkDir: streaming != nil}},
	}}}
	s := &fileSite{node: node, config: config, site: serve(t, config)}
	if s.dir, err = os.MkdirTemp(node.Home("alice"), "t"); err != nil { //nolint:usetesting // it must be below the home
		t.Fatal(err)
	}
	s.root(`chown alice:alice "$1"`, s.dir)
	return s
}

// root runs a script as root on the node, with arguments.
func (s *fileSite) root(script string, args ...string) string {
	s.t.Helper()
	set := "set --"
	for _, a := range args {
		quoted, err := executor.Quote(a)
		if err != nil {
			s.t.Fatal(err)
		}
		set += " " + quoted
	}
	out, err := s.node.Root(context.Background(), set+"\n"+script)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// file makes a file of alice in the folder of the test.
func (s *fileSite) file(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.root(`chown alice:alice "$1"`, path)
	return path
}

// get asks as alice; the parameters are pairs, path first.
func (s *fileSite) get(op, path string, more ...string) answer {
	s.t.Helper()
	return s.as("alice", "GET", opsPath+op+query(path, more...), "")
}

func query(path string, more ...string) string {
	q := url.Values{"path": {path}}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return "?" + q.Encode()
}

// send sends a body as alice.
func (s *fileSite) send(method, op string, body map[string]any) answer {
	s.t.Helper()
	return s.as("alice", method, opsPath+op, jsonOf(s.t, body))
}

// hostile are names that are awkward somewhere on the way; each is no longer than 255
// bytes.
var hostile = []string{
	"it's", `a"b`, "a\nb", "-rf", "--help", "a b", " ", "$(touch pwned)", "`id`", "a;id", "a&b", "a\\b", "tab\tx", "\x01\x7f", "ü", "日本", "\xff\xfe", "a\xc3",
	"*", "?", "[a]", "~", "#", "%41", "a|b", "a:b", "\uefff", "..a", "=x", "@file", strings.Repeat("n", 200), "Permission denied", "a\r\nb", "!x",
}
