package executor_test

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkg/sftp"

	"sallyport/executor"
	"sallyport/executor/sshtest"
	"sallyport/identity/identitytest"
)

// memoryFiles is the subsystem of a node in memory; starts counts it.
func memoryFiles(starts *atomic.Int32) func(context.Context, *sshtest.Session) sshtest.Exit {
	return func(_ context.Context, s *sshtest.Session) sshtest.Exit {
		starts.Add(1)
		turn, over := make(chan struct{}, 1), make(chan struct{})
		server := sftp.NewRequestServer(readWriter{s.Stdin, s.Stdout, turn, over}, sftp.InMemHandler())
		_ = server.Serve() // until the channel ends
		turn <- struct{}{} // and it writes no more
		close(over)
		return sshtest.Exit{}
	}
}

// A readWriter writes when it has its turn: the server has goroutines that outlive
// Serve.
type readWriter struct {
	io.Reader
	to   io.Writer
	turn chan struct{}
	over <-chan struct{}
}

func (w readWriter) Write(p []byte) (int, error) {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
		return w.to.Write(p)
	case <-w.over:
		return 0, io.ErrClosedPipe
	}
}

func (readWriter) Close() error { return nil }

// inBubble runs a test with a node in memory whose SFTP is starts'.
func inBubble(t *testing.T, subsystem func(context.Context, *sshtest.Session) sshtest.Exit, change func(*executor.Config), test func(*testing.T, *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t, newSite(t, func(_ *site, cfg *executor.Config, servers map[string]*sshtest.Config) {
			servers[node1].Subsystem = subsystem
			if change != nil {
				change(cfg)
			}
		}))
	})
}

func (s *site) files() (*executor.Files, error) {
	return s.executor.Files(s.t.Context(), s.caller, "hpc")
}

// stat is one call with Files of its own, as a request over HTTP makes it.
func (s *site) stat(path string) error {
	f, err := s.files()
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Stat(s.t.Context(), path, false)
	return err
}

func TestFilesShareOneChannelThatDoesNotStay(t *testing.T) {
	var starts atomic.Int32
	inBubble(t, memoryFiles(&starts), func(cfg *executor.Config) { cfg.Pool.MaxWaiters = 4096 }, func(t *testing.T, s *site) {
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				if err := s.stat("/"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		stats := s.executor.Stats()
		if n := starts.Load(); n != 1 || stats.Files.Channels != 1 || stats.Files.Opened != 1 || stats.Files.Operations != 500 || stats.Pools["hpc"].Leases != 1 {
			t.Errorf("%d channels, %+v, %d leases", n, stats.Files, stats.Pools["hpc"].Leases)
		}
		time.Sleep(4 * time.Second)
		if err := s.stat("/"); err != nil { // begins the time anew
			t.Error(err)
		}
		time.Sleep(4 * time.Second)
		if n := s.executor.Stats().Files.Channels; n != 1 {
			t.Errorf("%d channels", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if stats = s.executor.Stats(); stats.Files.Channels != 0 || stats.Pools["hpc"].Leases != 0 || stats.Pools["hpc"].Idle != 1 || stats.Running != 0 {
			t.Errorf("%+v, %+v", stats.Files, stats.Pools["hpc"])
		}
		time.Sleep(3 * time.Minute)
		if stats = s.executor.Stats(); stats.Pools["hpc"].Open != 0 {
			t.Errorf("%+v", stats.Pools["hpc"])
		}
	})
}

// A connection that is to go is not kept by a channel that is always in use.
func TestFilesFollowTheConnectionThatTakesSessions(t *testing.T) {
	var starts atomic.Int32
	inBubble(t, memoryFiles(&starts), func(cfg *executor.Config) { cfg.Pool.MaxLifetime = 10 * time.Minute }, func(t *testing.T, s *site) {
		for range 3600 {
			if err := s.stat("/"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		if open, dials := s.executor.Stats().Pools["hpc"].Open, s.dials(node1); open != 1 || dials < 6 || int(starts.Load()) > dials {
			t.Errorf("%d open, %d dials, %d channels", open, dials, starts.Load())
		}
	})
}

func TestFilesOfPeopleAreNotShared(t *testing.T) {
	var starts atomic.Int32
	inBubble(t, memoryFiles(&starts), nil, func(t *testing.T, s *site) {
		for _, subject := range []string{"one", "two"} {
			s.caller = identitytest.IdentityFrom(t, "test", subject, "alice", time.Hour)
			if err := s.stat("/"); err != nil {
				t.Error(err)
			}
		}
		if n := len(s.nodes[node1].Logins()); n != 2 || starts.Load() != 2 {
			t.Errorf("%d logins, %d channels", n, starts.Load())
		}
	})
}

func TestFilesEndWithTheExecutor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		s := newSite(t, func(_ *site, _ *executor.Config, servers map[string]*sshtest.Config) {
			servers[node1].Subsystem = memoryFiles(&starts)
		})
		f, err := s.files()
		if err != nil {
			t.Fatal(err)
		}
		wrote := make(chan error)
		go func() {
			defer f.Close()
			in, _ := io.Pipe() // says nothing
			_, err := f.Write(t.Context(), "/x", in, executor.WriteOptions{})
			in.Close()
			wrote <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			if err := s.executor.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close: %v", err)
			}
		}()
		if err := <-wrote; !errors.Is(err, executor.ErrClosed) {
			t.Errorf("got %v", err)
		}
		if _, err := s.files(); !errors.Is(err, executor.ErrClosed) {
			t.Errorf("afterwards: %v", err)
		}
		synctest.Wait()
	})
}

// A node that stops in the middle holds nobody longer than he wants to wait.
func TestFilesOfAFrozenNode(t *testing.T) {
	var starts atomic.Int32
	inBubble(t, memoryFiles(&starts), func(cfg *executor.Config) { cfg.Pool.ProbeInterval = time.Hour }, func(t *testing.T, s *site) {
		f, err := s.files()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s.nodes[node1].Freeze()
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := f.Mkdir(ctx, "/x", executor.Mode{}, false); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if err := f.Mkdir(t.Context(), "/y", executor.Mode{}, false); !errors.Is(err, executor.ErrOutcomeUnknown) || time.Since(begin) > time.Minute {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if _, err := f.Stat(t.Context(), "/", false); !errors.Is(err, executor.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		s.nodes[node1].Thaw()
		synctest.Wait()
		if err := s.stat("/"); err != nil {
			t.Errorf("on a new channel: %v", err)
		}
	})
}

func TestFilesWithoutSFTPAreRemembered(t *testing.T) {
	for name, subsystem := range map[string]func(context.Context, *sshtest.Session) sshtest.Exit{
		"refused": nil,
		"a greeting": func(_ context.Context, s *sshtest.Session) sshtest.Exit {
			_, _ = io.WriteString(s.Stdout, "Welcome!\n")
			return sshtest.Exit{}
		},
		"no program": func(context.Context, *sshtest.Session) sshtest.Exit { return sshtest.Exit{Code: 127} },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, subsystem, nil, func(t *testing.T, s *site) {
				for range 3 {
					// The node's shell knows no stat.
					if err := s.stat("/"); !errors.Is(err, executor.ErrUnsupported) {
						t.Errorf("got %v", err)
					}
				}
				time.Sleep(6 * time.Minute)
				if err := s.stat("/"); !errors.Is(err, executor.ErrUnsupported) {
					t.Errorf("got %v", err)
				}
				if stats := s.executor.Stats(); stats.Files.Commands != 4 || stats.Files.Failed != 4 || stats.Files.Opened != 0 || stats.Pools["hpc"].Leases != 0 {
					t.Errorf("%+v", stats.Files)
				}
			})
		})
	}
}

func TestFilesAreOpenedElsewhereWhenANodeIsDown(t *testing.T) {
	var starts atomic.Int32
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, cfg *executor.Config, servers map[string]*sshtest.Config) {
			servers[node1].Subsystem = memoryFiles(&starts)
			cfg.Systems[0].Nodes = []string{node1, node2} // the second is not there
		})
		for i := range 8 {
			s.caller = identitytest.IdentityFrom(t, "test", strings.Repeat("s", i+1), "alice", time.Hour)
			f, err := s.files()
			if err != nil {
				t.Fatal(err)
			}
			if f.Node() != node1 {
				t.Errorf("on %s", f.Node())
			}
			f.Close()
		}
	})
}

// bigFile makes a file of the node's user.
func bigFile(t testing.TB, c *filesCluster, size int64) string {
	t.Helper()
	path := c.dir + "/big"
	c.write(t, path, "begin")
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFilesEndWhenTheirCallerIsRevoked(t *testing.T) {
	t.Parallel()
	for name, way := range fileNodes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFiles(t, way, nil)
			path := bigFile(t, c, 256<<20)
			f, err := c.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			uploads, downloads := make(chan error, 1), make(chan error, 1)
			reading := make(chan struct{})
			var once sync.Once
			in, feed := io.Pipe()
			defer feed.Close()
			go func() {
				_, err := c.Write(t.Context(), c.dir+"/up", in, executor.WriteOptions{})
				uploads <- err
			}()
			if _, err := feed.Write(make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
			go func() {
				_, err := f.WriteRange(t.Context(), writerFunc(func(p []byte) (int, error) {
					once.Do(func() { close(reading) })
					time.Sleep(time.Millisecond) // a slow client, who would need 8 s
					return len(p), nil
				}), 0, 256<<20)
				downloads <- err
			}()
			<-reading
			if n := c.executor.CloseWhere(func(s executor.Session) bool { return s.Login == c.user }); n == 0 {
				t.Error("no connection was closed")
			}
			if err := <-uploads; !errors.Is(err, executor.ErrRevoked) {
				t.Errorf("upload: %v", err)
			}
			if err := <-downloads; !errors.Is(err, executor.ErrRevoked) {
				t.Errorf("download: %v", err)
			}
			if stats := c.executor.Stats(); stats.Pools["hpc"].Open != 0 || stats.Files.Channels != 0 {
				t.Errorf("%+v", stats)
			}
		})
	}
}

func TestFilesOfAStoppedSSHD(t *testing.T) {
	t.Parallel()
	c := newFiles(t, fileNodes["sftp-server"], func(cfg *executor.Config) { cfg.Pool.ProbeInterval, cfg.Pool.ProbeTimeout = time.Second, time.Second })
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Stat(ctx, c.dir, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	// The pool finds out, and closes the connection.
	if _, err := c.Stat(t.Context(), c.dir, false); !errors.Is(err, executor.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if err := c.Thaw(); err != nil {
		t.Fatal(err)
	}
	f, err := c.executor.Files(t.Context(), c.caller, "hpc")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Stat(t.Context(), c.dir, false); err != nil {
		t.Error(err)
	}
}

// TestFilesManyDownloadsTakeLittleMemory measures the heap while 200 downloads of one
// size, and then of eight times that size, go to readers that take nothing more until
// all of them have begun: what they hold then is the most that there can be.
func TestFilesManyDownloadsTakeLittleMemory(t *testing.T) {
	t.Parallel()
	const downloads = 200
	c := newFiles(t, "", nil)
	peak := func(size int64) uint64 {
		path := bigFile(t, c, size)
		runtime.GC()
		var before, now runtime.MemStats
		runtime.ReadMemStats(&before)
		var most uint64 // the first download alone measures
		measure := func() {
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapInuse-min(now.HeapInuse, before.HeapInuse))
		}
		all := make(chan struct{})
		var total atomic.Int64
		var wg, begun sync.WaitGroup
		begun.Add(downloads)
		for i := range downloads {
			wg.Go(func() {
				begin := sync.OnceFunc(func() {
					begun.Done()
					if i == 0 {
						begun.Wait()
						measure()
						close(all)
					}
					<-all
				})
				f, err := c.Open(t.Context(), path)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				n, err := f.WriteRange(t.Context(), writerFunc(func(p []byte) (int, error) {
					begin()
					if seen := total.Add(int64(len(p))); i == 0 && seen/int64(len(p))%8 == 0 {
						measure()
					}
					return len(p), nil
				}), 0, size)
				if err != nil || n != size {
					t.Errorf("%d of %d bytes, %v", n, size, err)
				}
			})
		}
		wg.Wait()
		return most
	}
	small, large := peak(512<<10), peak(4<<20)
	t.Logf("%d downloads: heap grew by %d MiB for 0.5 MiB each, %d MiB for 4 MiB each", downloads, small>>20, large>>20)
	// Other tests run meanwhile. Were the files in memory, it would be 800 MiB for the larger.
	const bound = 160 << 20
	if large > bound && large > small+small/2 {
		t.Errorf("heap grew by %d MiB, want at most %d, or what the smaller files take", large>>20, bound>>20)
	}
}
