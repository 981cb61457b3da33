package executor_test

import (
	"io"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/executor"
)

// BenchmarkFiles compares file operations, as a request over HTTP makes them, with
// those of github.com/pkg/sftp on one connection to the same sshd, where nothing is
// checked, shared or recorded.
func BenchmarkFiles(b *testing.B) {
	c := newFiles(b, "", nil)
	small, many := c.dir+"/small", c.dir+"/many"
	c.write(b, small, string(make([]byte, 4096)))
	if err := c.Mkdir(b.Context(), many, executor.Mode{}, false); err != nil {
		b.Fatal(err)
	}
	for i := range 200 {
		c.write(b, filepath.Join(many, "file-"+strconv.Itoa(i)), "")
	}
	big := bigFile(b, c, 16<<20)
	raw := rawFiles(b, c)
	with := func(act func(f *executor.Files) error) func() error {
		return func() error {
			f, err := c.executor.Files(b.Context(), c.caller, "hpc")
			if err != nil {
				return err
			}
			defer f.Close()
			return act(f)
		}
	}
	get := func(path string, size int64) func(f *executor.Files) error {
		return func(f *executor.Files) error {
			file, err := f.Open(b.Context(), path)
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = file.WriteRange(b.Context(), io.Discard, 0, size)
			return err
		}
	}
	rawGet := func(path string) func() error {
		return func() error {
			file, err := raw.Open(path)
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = file.WriteTo(io.Discard)
			return err
		}
	}
	for _, way := range []struct {
		name string
		act  func() error
		size int64
	}{
		{"stat/raw", func() error { _, err := raw.Lstat(small); return err }, 0},
		{"stat/executor", with(func(f *executor.Files) error { _, err := f.Stat(b.Context(), small, false); return err }), 0},
		{"stat/fenced", with(func(f *executor.Files) error {
			_, err := f.Within(executor.Fence{Folders: []string{c.dir}}).Stat(b.Context(), small, false)
			return err
		}), 0},
		{"list200/raw", func() error { _, err := raw.ReadDir(many); return err }, 0},
		{"list200/executor", with(func(f *executor.Files) error {
			return f.List(b.Context(), many, executor.ListOptions{}, func(executor.FileInfo) error { return nil })
		}), 0},
		{"read4KiB/raw", rawGet(small), 4096},
		{"read4KiB/executor", with(get(small, 4096)), 4096},
		{"read16MiB/raw", rawGet(big), 16 << 20},
		{"read16MiB/executor", with(get(big, 16<<20)), 16 << 20},
	} {
		b.Run(way.name+"/serial", func(b *testing.B) {
			b.SetBytes(way.size)
			for b.Loop() {
				if err := way.act(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
		})
		b.Run(way.name+"/parallel", func(b *testing.B) {
			b.SetBytes(way.size)
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := way.act(); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
		})
	}
}

// rawFiles is a client of github.com/pkg/sftp on a connection of its own.
func rawFiles(b *testing.B, c *filesCluster) *sftp.Client {
	b.Helper()
	verify, err := knownhosts.New(c.KnownHosts())
	if err != nil {
		b.Fatal(err)
	}
	credential, err := c.ca.Credential(b.Context(), c.caller, executor.Node{})
	if err != nil {
		b.Fatal(err)
	}
	conn, err := ssh.Dial("tcp", c.Addr(), &ssh.ClientConfig{
		User: c.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(credential.Signer)}, HostKeyCallback: verify, HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	client, err := sftp.NewClient(conn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Close() })
	return client
}
