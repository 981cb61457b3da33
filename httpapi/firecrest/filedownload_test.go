package firecrest_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func random(size int) string {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return string(b)
}

func TestDownload(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		content := random(5 << 20) // weakness 35: all of the limit, of any bytes
		path := s.file("f", content)
		a := s.get("download", path)
		if a.status != 200 || a.body != content || a.header.Get("Content-Type") != "application/octet-stream" || a.header.Get("Content-Length") != "5242880" {
			t.Errorf("%d, %d bytes, %v", a.status, len(a.body), a.header)
		}
		if a = s.get("download", s.file("empty", "")); a.status != 200 || a.body != "" || a.header.Get("Content-Length") != "0" {
			t.Errorf("%d %q %v", a.status, a.body, a.header)
		}
		a = s.as("alice", "HEAD", opsPath+"download"+query(path), "")
		if a.status != 200 || a.body != "" || a.header.Get("Content-Length") != "5242880" {
			t.Errorf("%d %v", a.status, a.header)
		}
		f := s.get("download", s.dir+"/none").fails(404, "No such file or directory")
		if f.ErrorType != "error" {
			t.Errorf("%+v", f)
		}
		s.get("download", s.dir).fails(400, "Is a directory")
		s.root(`touch "$1/roots" && chmod 600 "$1/roots"`, s.dir)
		s.get("download", s.dir+"/roots").fails(403, "Permission denied")
	})
}

func TestDownloadOfARange(t *testing.T) {
	t.Parallel()
	s := newFileSite(t, "internal-sftp", 10)
	path := s.file("f", "0123456789abcdef")
	s.get("download", path).fails(413, "File to download is too large.")
	for asked, want := range map[string]string{
		"bytes=0-3": "206 bytes 0-3/16 0123", "bytes=6-": "206 bytes 6-15/16 6789abcdef", "bytes=-2": "206 bytes 14-15/16 ef", "bytes=15-99": "206 bytes 15-15/16 f",
		"bytes=12-9223372036854775807": "413  ", "bytes=16-": "416 bytes */16 ", "bytes=-0": "416 bytes */16 ", "bytes=0-": "413  ", "bytes=-99": "413  ",
		"bytes=3-2": "413  ", "bytes=0-1,3-4": "413  ", "bytes=x-": "413  ", "lines=0-1": "413  ", "bytes=-": "413  ",
	} {
		a := s.as("alice", "GET", opsPath+"download"+query(path), "", "Range", asked)
		body := a.body
		if a.status >= 400 {
			body = ""
		}
		if got := fmt.Sprint(a.status, " ", a.header.Get("Content-Range"), " ", body); got != want {
			t.Errorf("%s: %q, want %q", asked, got, want)
		}
	}
}

// form is a body with one file, and its media type.
func form(t testing.TB, name, content string) (string, string) {
	t.Helper()
	var b strings.Builder
	w := multipart.NewWriter(&b)
	if err := w.WriteField("other", "ignored"); err != nil {
		t.Fatal(err)
	}
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name)
	part, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"; filename="` + quoted + `"`}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(part, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), w.FormDataContentType()
}

func (s *fileSite) upload(dir, name, content string, more ...string) answer {
	s.t.Helper()
	body, mediaType := form(s.t, name, content)
	return s.as("alice", "POST", opsPath+"upload"+query(dir, more...), body, "Content-Type", mediaType)
}

func (a answer) stored(content string) {
	a.t.Helper()
	sum := sha256.Sum256([]byte(content))
	if a.status != 204 || a.body != "" || a.header.Get("Content-Type") != "application/json" || a.header.Get("F7T-SHA256") != hex.EncodeToString(sum[:]) {
		a.t.Errorf("%s: %d %s %v", a.what, a.status, a.body, a.header)
	}
}

func (s *fileSite) holds(name, content string) {
	s.t.Helper()
	got, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil || string(got) != content {
		s.t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(content))
	}
}

// only checks that a folder holds these names and nothing else, as no temporary file.
func (s *fileSite) only(names ...string) {
	s.t.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil || len(entries) != len(names) {
		s.t.Errorf("%v, %v; want %q", entries, err, names)
	}
}

func TestUpload(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		content := random(5 << 20)
		s.upload(s.dir, "f", content).stored(content)
		s.holds("f", content)
		s.upload(s.dir+"/", "f", "").stored("") // weakness 32: an empty file, and over an old one
		s.holds("f", "")
		s.upload(s.dir, "big", content+"x").fails(413, "File to upload is too large.")
		s.upload(s.dir+"/none", "f", "x").fails(404, s.dir+"/none/f': No such file or directory")
		s.root(`mkdir "$1/roots" "$1/d" && chown alice "$1/d"`, s.dir)
		s.upload(s.dir+"/roots", "f", "x").fails(403, "Permission denied")
		s.upload(s.dir, "d", "x").fails(400, "Is a directory")
		s.upload(s.dir, "f", "x", "overwrite", "false").fails(400, "File exists")
		s.upload(s.dir, "f", "x", "sha256", strings.Repeat("0", 64)).fails(400, "does not have this SHA-256")
		s.upload(s.dir, "f", "x", "sha256", "0").fails(400, "64 hexadecimal digits")
		s.holds("f", "")
		sum := sha256.Sum256([]byte("x"))
		s.upload(s.dir, "g", "x", "sha256", strings.ToUpper(hex.EncodeToString(sum[:])), "overwrite", "false").stored("x")
		s.only("d", "f", "g", "roots")
	})
}

// Weakness 4: the name of an uploaded file leads nowhere else.
func TestNamesOfUploads(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		for _, name := range []string{"../f", "/tmp/f", "..", ".", "a/b", "\xef"} {
			switch name {
			case "\xef":
				s.upload(s.dir, name, "x").stored("x")
			default:
				s.upload(s.dir, name, "x").fails(400, "Name of the file should be no path")
			}
		}
		s.upload(s.dir, "", "x").fails(400, "a file with a name")
		stored := 1
		for _, name := range hostile {
			if strings.ContainsAny(name, "\r\n\x01") { // not possible in this header but as filename*
				continue
			}
			s.upload(s.dir, name, name).stored(name)
			real := name
			if name == "\uefff" {
				real = "\xff"
			}
			s.holds(real, name)
			stored++
		}
		body := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename*=utf-8''a%0Ab%EF%BD%B1\r\n\r\nx\r\n--b--\r\n"
		s.as("alice", "POST", opsPath+"upload"+query(s.dir), body, "Content-Type", "multipart/form-data; boundary=b").stored("x")
		s.holds("a\nbｱ", "x")
		s.only(make([]string, stored+1)...)
	})
}

// A body that is not read loses its answer if it is too large for the sockets between.
func TestAnUploadThatSaysHowLargeItIsIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	s := newFileSite(t, "internal-sftp", 1000)
	s.upload(s.dir, "f", random(1000)).stored(random(1000))
	s.upload(s.dir, "g", random(1001)).fails(413, "File to upload is too large.")
	s.upload(s.dir, "g", random(100_000)).fails(413, "File to upload is too large.")
	s.only("f")
}

func TestUploadsThatAreNoForm(t *testing.T) {
	t.Parallel()
	s := newFileSite(t, "internal-sftp", 0)
	post := func(mediaType, body string) answer {
		return s.as("alice", "POST", opsPath+"upload"+query(s.dir), body, "Content-Type", mediaType)
	}
	const formType = "multipart/form-data; boundary=b"
	post("application/json", "{}").fails(400, "not a whole multipart/form-data")
	post("multipart/form-data", "x").fails(400, "not a whole multipart/form-data")
	post(formType, "").fails(400, "")
	post(formType, "--b--\r\n").fails(400, "file: Field required")
	post(formType, "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--b--\r\n").fails(400, "a file with a name")
	post(formType, "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nbroken off").fails(400, "not a whole multipart/form-data")
	post(formType, "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nbroken off\r\n--").fails(400, "not a whole multipart/form-data")
	body, mediaType := form(t, "f", "x")
	s.as("alice", "POST", opsPath+"upload?path=/etc", body, "Content-Type", mediaType).fails(400, "does not match any")
	s.as("", "POST", opsPath+"upload"+query(s.dir), body, "Content-Type", mediaType).fails(401, "Not authenticated")
	s.only()
}

// A client that goes in the middle leaves the old file, and nothing beside it.
func TestAnUploadThatBreaksOffChangesNothing(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		s.file("f", "old")
		token, err := s.issuer.Mint(map[string]any{"sub": "sub-alice", "preferred_username": "alice"})
		if err != nil {
			t.Fatal(err)
		}
		body, mediaType := form(t, "f", random(1<<20))
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			opsPath+"upload"+query(s.dir), token, mediaType, len(body), body[:len(body)/2])
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // a real node
			if entries, err := os.ReadDir(s.dir); err == nil && len(entries) == 2 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the upload does not begin")
			}
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, _ = bufio.NewReader(conn).ReadString('\n')
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // a real node
			if entries, err := os.ReadDir(s.dir); err == nil && len(entries) == 1 {
				break
			}
			if time.Now().After(deadline) {
				t.Error("a temporary file stays")
				break
			}
		}
		s.holds("f", "old")
	})
}
