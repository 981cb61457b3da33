package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"sallyport/executor/sftp"
)

// The files of the node that the rows about files use, in a folder that every user
// can read.
const (
	smallFile = "small"   // 4 KiB
	textFile  = "text"    // 64 KiB
	bigFile   = "big"     // 1 MiB
	hugeFile  = "huge"    // 100 MB, sparse
	listed    = "listed"  // a folder of 200 files
	incoming  = "uploads" // where everybody may write

	entries   = 200
	viewBytes = 64 << 10
	bigBytes  = 1 << 20
	hugeBytes = 100_000_000
)

// makeFiles fills a folder for them.
func makeFiles() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "sallyport-bench-files-"); err != nil {
		return "", err
	}
	text := strings.Repeat("all work and no play makes a dull file\n", bigBytes/39+1)
	errs := []error{os.Chmod(dir, 0o755)} //nolint:gosec // users of the node are to read it
	for name, size := range map[string]int{smallFile: 4 << 10, textFile: viewBytes, bigFile: bigBytes, hugeFile: 0} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(text[:size]), 0o644)) //nolint:gosec // the same
	}
	errs = append(errs, os.Truncate(filepath.Join(dir, hugeFile), hugeBytes), os.Mkdir(filepath.Join(dir, listed), 0o755)) //nolint:gosec // the same
	for i := range entries {
		errs = append(errs, os.WriteFile(filepath.Join(dir, listed, fmt.Sprintf("file-%03d", i)), nil, 0o644)) //nolint:gosec // the same
	}
	uploads := filepath.Join(dir, incoming)
	errs = append(errs, os.Mkdir(uploads, 0o700), os.Chmod(uploads, 0o777)) //nolint:gosec // they are to write there
	return dir, errors.Join(errs...)
}

// A fileRow is a call about files, and the same by other means.
type fileRow struct {
	name string
	// request is what a client sends through HTTP, and a part of what comes back.
	request func(s *site, client int) (method, path, media, body string, status int, want string)
	// raw does it over an SFTP channel; nil: there is no such row.
	raw func(ctx context.Context, s *site, c *sftp.Client, client int) error
	// command does it in a session; empty: there is no such row.
	command func(s *site) string
}

// fileRows are the calls that users make most.
func fileRows() []fileRow {
	get := func(op, name, query, want string) func(*site, int) (string, string, string, string, int, string) {
		return func(s *site, _ int) (string, string, string, string, int, string) {
			return http.MethodGet, "/filesystem/files/ops/" + op + "?path=" + filepath.Join(s.files, name) + query, "", "", http.StatusOK, want
		}
	}
	return []fileRow{
		{
			name: "stat", request: get("stat", smallFile, "", `"size":4096`), raw: rawStat,
			command: func(s *site) string { return "stat " + filepath.Join(s.files, smallFile) },
		},
		{
			name: "ls", request: get("ls", listed, "", `"file-199"`), raw: rawList,
			command: func(s *site) string { return "ls -l " + filepath.Join(s.files, listed) },
		},
		{
			name: "head", request: get("head", textFile, "&lines=10", `dull file`), raw: rawRead(textFile, 4<<10),
			command: func(s *site) string { return "head -n 10 " + filepath.Join(s.files, textFile) },
		},
		{name: "view", request: get("view", textFile, fmt.Sprintf("&size=%d", viewBytes), `dull file`), raw: rawRead(textFile, viewBytes)},
		{name: "download", request: get("download", bigFile, "", `dull file`), raw: rawRead(bigFile, bigBytes)},
		{name: "upload", request: uploadRequest, raw: rawWrite},
	}
}

func uploadRequest(s *site, client int) (method, path, media, body string, status int, want string) {
	body = fmt.Sprintf("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"http-%d\"\r\n\r\n%s\r\n--b--\r\n", client, strings.Repeat("x", bigBytes))
	return http.MethodPost, "/filesystem/files/ops/upload?path=" + filepath.Join(s.files, incoming), "multipart/form-data; boundary=b", body, http.StatusNoContent, ""
}

func rawStat(ctx context.Context, s *site, c *sftp.Client, _ int) error {
	_, err := c.Stat(ctx, filepath.Join(s.files, smallFile))
	return err
}

func rawList(ctx context.Context, s *site, c *sftp.Client, _ int) error {
	n := 0
	err := c.List(ctx, filepath.Join(s.files, listed), func(sftp.Name) error { n++; return nil })
	if err == nil && n < entries {
		err = fmt.Errorf("listed %d entries", n)
	}
	return err
}

func rawRead(name string, size int64) func(context.Context, *site, *sftp.Client, int) error {
	return func(ctx context.Context, s *site, c *sftp.Client, _ int) error {
		h, err := c.Open(ctx, filepath.Join(s.files, name), sftp.Read, sftp.Attrs{})
		if err != nil {
			return err
		}
		_, err = c.ReadRange(ctx, h, 0, size, func([]byte) error { return nil })
		return errors.Join(err, c.Shut(ctx, h))
	}
}

func rawWrite(ctx context.Context, s *site, c *sftp.Client, client int) error {
	h, err := c.Open(ctx, filepath.Join(s.files, incoming, fmt.Sprintf("raw-%d", client)), sftp.Write|sftp.Create, sftp.Attrs{})
	if err != nil {
		return err
	}
	left, piece := bigBytes, make([]byte, 32<<10)
	_, err = c.WriteRange(ctx, h, 0, func() ([]byte, error) {
		if left == 0 {
			return nil, io.EOF
		}
		left -= len(piece)
		return piece, nil
	})
	return errors.Join(err, c.Sync(ctx, h), c.Shut(ctx, h)) // as an upload that is stored
}

// fileScenarios are three rows for each call: over SFTP, by a command, and through HTTP.
func fileScenarios(opt options) (list []scenario) {
	clients := []int{1, 50, 500}
	if opt.Quick {
		clients = []int{1, 8}
	}
	for _, row := range fileRows() {
		list = append(list, scenario{name: row.name + " raw sftp", clients: clients, prepare: prepareRawFiles(row)})
		if row.command != nil {
			list = append(list, scenario{name: row.name + " raw exec", clients: clients, prepare: prepareRawCommand(row.command)})
		}
		list = append(list, scenario{name: row.name, clients: clients, prepare: prepareFiles(row), ofService: true})
	}
	return list
}

func prepareFiles(row fileRow) func(context.Context, *site, *service, int) (op, func(), error) {
	return func(ctx context.Context, s *site, v *service, clients int) (op, func(), error) {
		if !v.files {
			return nil, nil, nil
		}
		callers := make([]*caller, clients)
		var first sync.WaitGroup
		for i := range callers {
			method, path, media, body, status, want := row.request(s, i)
			callers[i] = newRequest(v.address, s.tokens[i%users], method, path, media, body, status, want)
			if i < users { // whose connection stands then
				first.Go(func() { _ = callers[i].call(ctx) })
			}
		}
		first.Wait()
		return calling(callers)
	}
}

// prepareRawFiles is one SFTP channel for each user, on a connection of its own.
func prepareRawFiles(row fileRow) func(context.Context, *site, *service, int) (op, func(), error) {
	return func(ctx context.Context, s *site, _ *service, clients int) (op, func(), error) {
		channels := make([]*sftp.Client, min(users, clients))
		connections := make([]*ssh.Client, len(channels))
		done := func() {
			for i := range channels {
				if channels[i] != nil {
					channels[i].Close()
				}
				if connections[i] != nil {
					_ = connections[i].Close() // the node's end is closed with it
				}
			}
		}
		for i := range channels {
			var err error
			if connections[i], err = s.dial(i); err == nil {
				channels[i], err = openSFTP(ctx, connections[i])
			}
			if err != nil {
				done()
				return nil, nil, err
			}
		}
		return func(ctx context.Context, client int) error {
			return row.raw(ctx, s, channels[client%len(channels)], client)
		}, done, nil
	}
}

// A subsystem is the channel of an SFTP server.
type subsystem struct {
	io.Reader
	io.WriteCloser
}

func openSFTP(ctx context.Context, c *ssh.Client) (*sftp.Client, error) {
	session, err := c.NewSession()
	if err != nil {
		return nil, err
	}
	in, err := session.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := session.RequestSubsystem("sftp"); err != nil {
		return nil, err
	}
	return sftp.New(ctx, subsystem{out, in}, sftp.Options{})
}

func prepareRawCommand(command func(*site) string) func(context.Context, *site, *service, int) (op, func(), error) {
	return func(ctx context.Context, s *site, v *service, clients int) (op, func(), error) {
		return prepareRawOf(ctx, s, clients, command(s))
	}
}
