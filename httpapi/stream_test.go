package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor"
)

// streams makes a runner whose command has started and writes by a function.
func streams(write func(ctx context.Context, cmd executor.Command) (executor.Result, error)) func(*Config) {
	return func(c *Config) {
		c.Commands = fakeRunner{func(ctx context.Context, cmd executor.Command) (executor.Result, error) {
			cmd.Started(started)
			return write(ctx, cmd)
		}}
	}
}

func print(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

func TestFramesLookLikeThis(t *testing.T) {
	t.Parallel()
	ok := func(_ context.Context, cmd executor.Command) (executor.Result, error) {
		return executor.Result{Start: started, ExitCode: 3, Duration: 1234 * time.Millisecond}, errors.Join(
			print(cmd.Stdout, "one <two> & ü\n"), print(cmd.Stderr, "\xff\x00"), print(cmd.Stdout, "cut \xe2\x82"))
	}
	fails := func(_ context.Context, cmd executor.Command) (executor.Result, error) {
		return executor.Result{Start: started}, errors.Join(print(cmd.Stdout, "one\n"), fmt.Errorf("secret: %w", executor.ErrOutcomeUnknown))
	}
	killed := func(context.Context, executor.Command) (executor.Result, error) {
		return executor.Result{Start: started, ExitCode: -1, Signal: "TERM", TimedOut: true}, nil
	}
	for _, c := range []struct {
		name, accept string
		run          func(context.Context, executor.Command) (executor.Result, error)
	}{
		{"stream-exit.ndjson", mediaNDJSON, ok},
		{"stream-exit.sse", mediaSSE, ok},
		{"stream-error.ndjson", mediaNDJSON, fails},
		{"stream-error.sse", mediaSSE, fails},
		{"stream-signal.ndjson", mediaNDJSON, killed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := start(t, streams(c.run)).do("POST", execPath, `{"command":"x"}`, "Accept", c.accept)
			if got := a.header.Get("Content-Type"); a.status != http.StatusOK || got != c.accept {
				t.Errorf("status %d, Content-Type %q", a.status, got)
			}
			golden(t, c.name+".golden", strings.ReplaceAll(a.body, a.header.Get("Sallyport-Request-Id"), "golden-1"))
		})
	}
}

func TestFramesArriveAsTheyHappen(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	s := start(t, streams(func(_ context.Context, cmd executor.Command) (executor.Result, error) {
		for i := range 3 {
			<-next // the client has what came before
			if err := print(cmd.Stdout, fmt.Sprintln("line", i)); err != nil {
				return executor.Result{}, err
			}
		}
		<-next
		return executor.Result{Start: started}, nil
	}))
	for _, accept := range []string{mediaNDJSON, mediaSSE} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+execPath, strings.NewReader(`{"command":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+good)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", accept)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		for _, want := range []string{`"start"`, `line 0`, `line 1`, `line 2`, `"exit"`} {
			for lines.Scan() && !strings.Contains(lines.Text(), "{") {
				continue // the other lines of an event
			}
			if !strings.Contains(lines.Text(), want) {
				t.Fatalf("frame %q instead of %s", lines.Text(), want)
			}
			if want != `"exit"` {
				next <- struct{}{}
			}
		}
		resp.Body.Close()
	}
}

// eventsOf are the events of a stream in NDJSON.
func eventsOf(t *testing.T, body string) []string {
	t.Helper()
	var events []string
	for line := range strings.Lines(body) {
		var f struct{ Event string }
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		events = append(events, f.Event)
	}
	return events
}

func TestASilentStreamHasHeartbeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, streams(func(_ context.Context, cmd executor.Command) (executor.Result, error) {
			time.Sleep(50 * time.Second) // 3 heartbeats
			err := print(cmd.Stdout, "x")
			time.Sleep(10 * time.Second) // none: the output was a sign of life
			err = errors.Join(err, print(cmd.Stdout, "y"))
			time.Sleep(16 * time.Second) // one
			return executor.Result{Start: started}, err
		}))
		got := eventsOf(t, readAnswer(t, m.post(t, execPath, mediaNDJSON, `{"command":"x"}`)).body)
		want := "start heartbeat heartbeat heartbeat stdout stdout heartbeat exit"
		if strings.Join(got, " ") != want {
			t.Errorf("frames %q, want %q", got, want)
		}
	})
}

func TestALongStreamIsNotCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		twelveHours := streams(func(ctx context.Context, cmd executor.Command) (executor.Result, error) {
			for range 12 {
				time.Sleep(time.Hour)
				if err := print(cmd.Stdout, "x"); err != nil {
					return executor.Result{}, err
				}
			}
			return executor.Result{Start: started}, ctx.Err()
		})
		m := inMemory(t, func(c *Config) {
			c.Heartbeat = 45 * time.Minute
			twelveHours(c)
		})
		got := eventsOf(t, readAnswer(t, m.post(t, execPath, mediaNDJSON, `{"command":"x"}`)).body)
		if n := strings.Count(strings.Join(got, " "), "stdout"); n != 12 || got[len(got)-1] != "exit" {
			t.Errorf("%d pieces of output, last frame %q", n, got[len(got)-1])
		}
	})
}

func TestALongCommandIsNotCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, func(c *Config) {
			c.Commands = fakeRunner{func(ctx context.Context, _ executor.Command) (executor.Result, error) {
				select {
				case <-ctx.Done():
				case <-time.After(time.Hour):
				}
				return executor.Result{Start: started, Stdout: []byte("done")}, ctx.Err()
			}}
		})
		if a := readAnswer(t, m.post(t, execPath, mediaJSON, `{"command":"x"}`)); a.status != http.StatusOK {
			t.Errorf("status %d: %s", a.status, a.body)
		}
	})
}

func TestAClientThatDoesNotReadEndsItsCommand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type end struct {
			after    time.Duration
			write    error
			ctx, run error
		}
		ended := make(chan end, 1)
		m := inMemory(t, streams(func(ctx context.Context, cmd executor.Command) (executor.Result, error) {
			began := time.Now()
			var err error
			for err == nil {
				err = print(cmd.Stdout, strings.Repeat("x", 8<<10))
			}
			e := end{after: time.Since(began), write: err, ctx: ctx.Err()}
			e.run = print(cmd.Stderr, "more")
			ended <- e
			return executor.Result{}, fmt.Errorf("output: %w", err)
		}))
		conn := m.post(t, execPath, mediaNDJSON, `{"command":"yes"}`)
		if _, err := io.ReadFull(conn, make([]byte, 20<<10)); err != nil {
			t.Fatal(err)
		}
		e := <-ended // while nobody reads
		if e.after != 30*time.Second {
			t.Errorf("command ended after %s, want the write timeout", e.after)
		}
		if !errors.Is(e.write, errClientGone) || e.ctx == nil || !errors.Is(e.run, errClientGone) {
			t.Errorf("write: %v, context: %v, later write: %v", e.write, e.ctx, e.run)
		}
	})
}

func TestASlowClientThatReadsOnGetsEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		output := strings.Repeat("x", 1<<20)
		m := inMemory(t, func(c *Config) {
			c.Commands = fakeRunner{func(context.Context, executor.Command) (executor.Result, error) {
				return executor.Result{Start: started, Stdout: []byte(output)}, nil
			}}
		})
		conn := m.post(t, execPath, mediaJSON, `{"command":"x"}`)
		a := readAnswer(t, slowly{conn})
		var got wholeAnswer
		if err := json.Unmarshal([]byte(a.body), &got); err != nil {
			t.Fatal(err)
		}
		if got.Stdout != output {
			t.Errorf("%d bytes of %d", len(got.Stdout), len(output))
		}
	})
}

// slowly reads 4 KiB a second.
type slowly struct{ io.Reader }

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return s.Reader.Read(p)
}

func TestABodyThatDoesNotArriveIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, nil)
		conn := m.dial()
		defer conn.Close()
		m.write(t, conn, execPath, mediaJSON, 1000, `{"command":`)
		began := time.Now()
		readAnswer(t, conn).wantProblem(t, http.StatusRequestTimeout, "body_timeout")
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("given up after %s", took)
		}
	})
}

func TestAPanicAfterTheFirstFrameCutsTheStream(t *testing.T) {
	t.Parallel()
	s := start(t, streams(func(_ context.Context, cmd executor.Command) (executor.Result, error) {
		_ = print(cmd.Stdout, "x")
		panic("a mistake")
	}))
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+execPath, strings.NewReader(`{"command":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+good)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", mediaNDJSON)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("stream %q ended with %v: a client cannot see that it was cut", data, err)
	}
	if !strings.Contains(s.log.String(), "a mistake") {
		t.Error("the panic is not in the log")
	}
}

func TestARunnerThatNeverStartsIsAnInternalError(t *testing.T) {
	t.Parallel()
	a := start(t, nil).do("POST", execPath, `{"command":"x"}`, "Accept", mediaNDJSON)
	a.wantProblem(t, http.StatusInternalServerError, "internal")
}
