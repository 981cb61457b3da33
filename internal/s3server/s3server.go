// Package s3server starts a real S3 server, versitygw over a folder, on a loopback port
// for tests. It is built from its pinned source when it is missing, which needs the Go
// module proxy the first time.
package s3server

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"sallyport/internal/fromsource"
)

const (
	program = "github.com/versity/versitygw/cmd/versitygw"
	version = "v1.8.0"
)

// The server's keys and region, and the bucket that exists.
const (
	AccessKeyID     = "test-access"
	SecretAccessKey = "test-secret-test-secret"
	Region          = "us-east-1"
	Bucket          = "transfers"
)

// A Server is a running server.
type Server struct {
	// URL is the server's, Dir holds a folder for each bucket.
	URL, Dir string

	stop   context.CancelFunc
	exited chan struct{}
}

// Start starts a server with files in dir, and waits until it answers.
func Start(ctx context.Context, dir string) (*Server, error) {
	path, err := fromsource.Install(ctx, program, version)
	if err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "http://" + address, Dir: filepath.Join(dir, "s3"), exited: make(chan struct{})}
	if err := os.MkdirAll(filepath.Join(s.Dir, Bucket), 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, "versitygw.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has a descriptor of its own
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	process := exec.CommandContext(life, path, "--port", address, "--region", Region, "posix", s.Dir)
	process.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKeyID, "ROOT_SECRET_KEY="+SecretAccessKey)
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		stop()
		return nil, err
	}
	go func() {
		defer close(s.exited)
		_ = process.Wait() // killed by Close
	}()
	if err := s.await(ctx, address); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("%w; its log is %s", err, log.Name())
	}
	return s, nil
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// await waits until somebody listens.
func (s *Server) await(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("versitygw does not listen: %w", err)
		case <-s.exited:
			return fmt.Errorf("versitygw has ended: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close ends the server.
func (s *Server) Close() error {
	s.stop()
	<-s.exited
	return nil
}
