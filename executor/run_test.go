package executor_test

import (
	"bytes"
	"testing"
	"testing/synctest"

	"sallyport/executor"
)

func TestStreamsAndExitCodeComeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		r, err := s.run("echo hello")
		if err != nil {
			t.Fatal(err)
		}
		if string(r.Stdout) != "hello" || string(r.Stderr) != "HELLO" || r.ExitCode != 0 || r.Truncated {
			t.Errorf("result %+v", r)
		}
		if r.System != "hpc" || r.Node != node1 || r.User != "alice" || r.CertificateSerial != 1 || r.ID == "" {
			t.Errorf("start %+v", r.Start)
		}
		if r, err = s.run("exit 7"); err != nil || r.ExitCode != 7 || r.Signal != "" {
			t.Errorf("exit 7 gave %+v, %v", r, err)
		}
	})
}

func TestStdinReachesTheCommandAndEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		for _, input := range [][]byte{nil, {}, []byte("a\x00b\xff\n"), bytes.Repeat([]byte("0123456789abcdef"), 1<<16)} {
			cmd := executor.Command{Line: "cat"}
			if input != nil {
				cmd.Stdin = bytes.NewReader(input)
			}
			r, err := s.executor.Run(t.Context(), s.caller, "hpc", cmd)
			if err != nil || !bytes.Equal(r.Stdout, input) || len(r.Stderr) != 0 {
				t.Errorf("%d bytes came back as %d: %v", len(input), len(r.Stdout), err)
			}
		}
	})
}
