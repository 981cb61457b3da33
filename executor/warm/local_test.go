package warm

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// A shell is a channel to a worker that sh starts on this machine, as sshd would.
type shell struct {
	io.Reader
	io.Writer
	cmd   *exec.Cmd
	close func()
}

func (s *shell) Close() error {
	s.close()
	return nil
}

// old is the worker as it is with a Python that has no posix_spawn.
var old = "import os\ndel os.posix_spawn\n" + script

// clean closes what the process of the test has inherited, as sshd does.
const clean = "import os\nos.closerange(3, 1024)\n"

// startShell starts a worker in an empty home directory.
func startShell(t testing.TB, script string) (*Worker, *shell) {
	t.Helper()
	script = clean + script
	cmd := exec.Command("/bin/sh", "-c", line(script))
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + cmd.Dir, "SHELL=/bin/sh", "GIVEN=by sshd"}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &shell{Reader: out, Writer: in, cmd: cmd}
	ended := make(chan struct{})
	s.close = sync.OnceFunc(func() {
		_ = in.Close()
		go func() { // closes out, and so ends who reads it
			_ = cmd.Wait()
			close(ended)
		}()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	w, err := start(ctx, s, wg.Go, script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("the worker does not end")
			_ = cmd.Process.Kill()
		}
		wg.Wait()
	})
	return w, s
}

// An outcome is how a command ended.
type outcome struct {
	stdout, stderr string
	code           int
	signal         string
	refused, lost  bool
}

// run runs a command with an input.
func run(w *Worker, c Command, stdin io.Reader) outcome {
	c.Input = stdin != nil
	j := w.Job()
	if ok, err := j.SendRequest("exec", true, c.Payload()); !ok {
		return outcome{refused: err == nil, lost: err != nil}
	}
	return finish(j, stdin)
}

// finish sees a command that was started to its end.
func finish(j *Job, stdin io.Reader) outcome {
	var o outcome
	var stdout, stderr bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(&stdout, struct{ io.Reader }{j}) })
	wg.Go(func() { _, _ = io.Copy(&stderr, struct{ io.Reader }{j.Stderr()}) })
	if stdin != nil {
		wg.Go(func() {
			_, _ = io.Copy(struct{ io.Writer }{j}, stdin)
			_ = j.CloseWrite()
		})
	}
	o.lost = true
	for r := range j.Requests() {
		o.lost = false
		switch r.Type {
		case "exit-status":
			var status struct{ Code uint32 }
			_ = ssh.Unmarshal(r.Payload, &status)
			o.code = int(status.Code)
		case "exit-signal":
			var s struct {
				Name       string
				Core       bool
				Text, Lang string
			}
			_ = ssh.Unmarshal(r.Payload, &s)
			o.signal = s.Name
		}
	}
	wg.Wait()
	o.stdout, o.stderr = stdout.String(), stderr.String()
	return o
}

func TestWorkerRunsCommands(t *testing.T) {
	t.Parallel()
	every := make([]byte, 300<<10)
	for i := range every {
		every[i] = byte(i ^ i>>8)
	}
	long := strings.Repeat("x", 60<<10)
	tests := map[string]struct {
		command Command
		stdin   string
		want    outcome
	}{
		"nothing":          {Command{Line: "true"}, "", outcome{}},
		"output":           {Command{Line: "echo out; echo err >&2; exit 3"}, "", outcome{stdout: "out\n", stderr: "err\n", code: 3}},
		"program":          {Command{Argv: []string{"echo", "a  b", "$HOME", "'"}}, "", outcome{stdout: "a  b $HOME '\n"}},
		"path":             {Command{Argv: []string{"/bin/echo", "x"}}, "", outcome{stdout: "x\n"}},
		"input":            {Command{Argv: []string{"cat"}}, string(every), outcome{stdout: string(every)}},
		"input not read":   {Command{Line: "exec <&-; echo ok"}, string(every), outcome{stdout: "ok\n"}},
		"input, part":      {Command{Argv: []string{"head", "-c", "5"}}, string(every), outcome{stdout: string(every[:5])}},
		"no input":         {Command{Line: "cat; test -p /dev/stdin && echo pipe"}, "", outcome{stdout: "pipe\n"}},
		"signal":           {Command{Line: "kill -TERM $$"}, "", outcome{signal: "TERM"}},
		"odd signal":       {Command{Line: "kill -XCPU $$"}, "", outcome{signal: "SIG@openssh.com"}},
		"SIGPIPE":          {Command{Line: "kill -PIPE $$"}, "", outcome{signal: "PIPE"}},
		"environment":      {Command{Line: `echo "$GIVEN $NEW ${LC_CTYPE-unset}"`, Env: []string{"NEW=a=b\nc"}}, "", outcome{stdout: "by sshd a=b\nc unset\n"}},
		"directory":        {Command{Line: "pwd", Directory: "/usr/bin"}, "", outcome{stdout: "/usr/bin\n"}},
		"directory, PWD":   {Command{Argv: []string{"sh", "-c", `echo $PWD; ls -d -- "$PWD"`}, Directory: "/usr/bin"}, "", outcome{stdout: "/usr/bin\n/usr/bin\n"}},
		"no directory":     {Command{Argv: []string{"pwd"}, Directory: "/none"}, "", outcome{stderr: "cd: /none: No such file or directory\n", code: 126}},
		"no program":       {Command{Argv: []string{"none-such"}}, "", outcome{stderr: "none-such: not found\n", code: 127}},
		"no path":          {Command{Argv: []string{"/none/such"}}, "", outcome{stderr: "/none/such: not found\n", code: 127}},
		"not executable":   {Command{Argv: []string{"/etc/passwd"}}, "", outcome{stderr: "/etc/passwd: cannot be executed\n", code: 126}},
		"folder":           {Command{Argv: []string{"/etc"}}, "", outcome{stderr: "/etc: cannot be executed\n", code: 126}},
		"long line":        {Command{Line: "echo " + long}, "", outcome{stdout: long + "\n"}},
		"no descriptors":   {Command{Line: "exec >&- 2>&- <&-; sleep 0.05; exit 4"}, "", outcome{code: 4}},
		"own group":        {Command{Line: "kill -KILL 0"}, "", outcome{signal: "KILL"}},
		"late background":  {Command{Line: "(sleep 0.2; echo late) & echo early"}, "", outcome{stdout: "early\nlate\n"}},
		"quiet background": {Command{Line: "sleep 30 >/dev/null 2>&1 & echo $! >pid; kill $!"}, "", outcome{}},
	}
	for version, script := range map[string]string{"posix_spawn": script, "fork": old} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w, _ := startShell(t, script)
			for name, test := range tests {
				var stdin io.Reader
				if test.stdin != "" {
					stdin = strings.NewReader(test.stdin)
				}
				if got := run(w, test.command, stdin); got != test.want {
					t.Errorf("%s: got %.300v\nwant %.300v", name, got, test.want)
				}
				if !w.Idle() {
					t.Fatalf("%s: the worker takes no further command", name)
				}
			}
		})
	}
}

// A worker may end between the moment that it is seen to be idle and that it is given a
// command, which must not wait for it then.
func TestAWorkerThatHasEndedFinishesEveryJob(t *testing.T) {
	w, _ := startShell(t, script)
	w.Close()
	<-w.Done()
	for range 2 { // at once, and when all that it had to do is done
		j := w.Job()
		if ok, err := j.SendRequest("exec", true, (&Command{Line: "true"}).Payload()); ok || err == nil {
			t.Errorf("a command was started: %v %v", ok, err)
		}
		select {
		case _, open := <-j.Requests():
			if open {
				t.Error("the node reports an end")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the end of a job of a worker that is gone never comes")
		}
		if n, err := j.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("output: %d %v", n, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
