package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// confinement are attacks by who may reach the files of one folder, and wants others.
func confinement() []attack {
	return []attack{
		{"an extracted archive with links to / and to a neighbour, and reads", "12 x 403 path_outside", readsThroughLinks},
		{"the same links, and what changes files, permissions or folders", "21 x 403 path_outside", changesThroughLinks},
		{"the same links, and jobs: mv, cp, compress, extract, rm, a script", "10 x 403 path_outside", jobsThroughLinks},
		{"archives with links, hard links and names that lead out", "nothing left the folder", archivesThatLeadOut},
		{"/home/al for who may reach /home/a, and '..' in each form", "10 x 400 field_invalid", neighbours},
	}
}

// A jail is a service that gives a person the files of their home folder alone. Beside that
// is a folder whose name begins alike, which the person's account may read and write.
type jail struct {
	*service
	token, home, beside string
	leave               func()
}

// imprison makes a jail with links from an archive in it: x/root leads to /, x/out to the
// folder beside, x/up upwards.
func (s *site) imprison(ctx context.Context) (j *jail, err error) {
	j = &jail{home: s.node.Home(login(0))}
	j.beside = j.home + "l"
	if j.token, err = s.token(0, nil); err != nil {
		return nil, err
	}
	if j.service, err = s.serve(ctx, settings{
		system: fmt.Sprintf("[[systems.firecrest.file_systems]]\npath = %q\n", j.home), more: "[firecrest]\nenabled = true",
	}); err != nil {
		return nil, err
	}
	j.leave = func() {
		for _, name := range []string{j.beside, j.home + "/x", j.home + "/a.tgz", j.home + "/plain"} {
			_ = os.RemoveAll(name) // the node ends soon after
		}
	}
	secret := j.beside + "/secret"
	if err := errors.Join(os.Mkdir(j.beside, 0o700), os.WriteFile(secret, []byte("secret"), 0o600)); err != nil {
		return nil, err
	}
	for name, mode := range map[string]os.FileMode{j.beside: 0o777, secret: 0o666} { // whatever the umask is
		if err := os.Chmod(name, mode); err != nil {
			return nil, err
		}
	}
	if err := j.upload(ctx, j.home, "plain", []byte("plain")); err != nil {
		return nil, err
	}
	if a, err := j.ask(ctx, http.MethodPost, "ops/mkdir", "path", j.home+"/x"); err != nil || a.status != http.StatusCreated {
		return nil, fmt.Errorf("mkdir: %v: %w", a, err)
	}
	a, err := j.extract(ctx, "root -> /", "up -> ../../../../../../../..", "out -> "+j.beside)
	if err != nil || a.status >= http.StatusBadRequest {
		return nil, fmt.Errorf("extract: %v: %w", a, err)
	}
	return j, nil
}

// links are ways out, over links: to a file that is there, and one that is not.
func (j *jail) links() []string {
	return []string{j.home + "/x/out/secret", j.home + "/x/root/etc/new"}
}

// ask makes a call about a path: its pairs are parameters of a GET and DELETE, else members
// of a body.
func (j *jail) ask(ctx context.Context, method, op string, pairs ...string) (answer, error) {
	c := call{method: method, path: "/filesystem/node/" + op, token: j.token}
	query, members := url.Values{}, map[string]any{}
	for pair := range slices.Chunk(pairs, 2) {
		name, value := pair[0], pair[1]
		query.Set(name, value)
		members[name] = value
		if value == "true" {
			members[name] = true
		}
	}
	if method == http.MethodGet || method == http.MethodDelete {
		c.path += "?" + query.Encode()
	} else {
		c.body = members
	}
	return j.call(ctx, c)
}

func (j *jail) upload(ctx context.Context, dir, name string, content []byte) error {
	a, err := j.uploaded(ctx, dir, name, content)
	if err == nil && a.status != http.StatusNoContent {
		err = fmt.Errorf("upload of %s: %v", name, a)
	}
	return err
}

func (j *jail) uploaded(ctx context.Context, dir, name string, content []byte) (answer, error) {
	const boundary = "b0undary"
	form := "--" + boundary + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + name + "\"\r\n\r\n" + string(content) + "\r\n--" + boundary + "--\r\n"
	return j.call(ctx, call{
		path: "/filesystem/node/ops/upload?path=" + url.QueryEscape(dir), token: j.token, body: []byte(form),
		header: http.Header{"Content-Type": {"multipart/form-data; boundary=" + boundary}},
	})
}

// extract uploads an archive of entries and extracts it into x: "name" is a file, "name ->
// target" a link, "name => target" a hard link, "name/" a folder.
func (j *jail) extract(ctx context.Context, entries ...string) (answer, error) {
	var text bytes.Buffer
	zip := gzip.NewWriter(&text)
	w := tar.NewWriter(zip)
	var errs []error
	for _, e := range entries {
		h := &tar.Header{Name: e, Typeflag: tar.TypeReg, Mode: 0o755}
		if name, target, ok := strings.Cut(e, " -> "); ok {
			h = &tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}
		} else if name, target, ok := strings.Cut(e, " => "); ok {
			h = &tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}
		} else if strings.HasSuffix(e, "/") {
			h.Typeflag = tar.TypeDir
		}
		errs = append(errs, w.WriteHeader(h))
	}
	if err := errors.Join(append(errs, w.Close(), zip.Close(), j.upload(ctx, j.home, "a.tgz", text.Bytes()))...); err != nil {
		return answer{}, err
	}
	return j.ask(ctx, http.MethodPost, "ops/extract", "path", j.home+"/a.tgz", "targetPath", j.home+"/x")
}

// An answers is a count of equal answers, in the order in which they came first.
type answers struct {
	order []string
	count map[string]int
}

func (l *answers) add(text string) {
	if l.count == nil {
		l.count = make(map[string]int)
	}
	if l.count[text]++; l.count[text] == 1 {
		l.order = append(l.order, text)
	}
}

func (l *answers) String() string {
	var all []string
	for _, text := range l.order {
		all = append(all, fmt.Sprintf("%d x %s", l.count[text], text))
	}
	return strings.Join(all, ", ")
}

// untouched adds to what came back whether the folder beside has changed.
func (j *jail) untouched(got string) (string, error) {
	entries, err := os.ReadDir(j.beside)
	text, readErr := os.ReadFile(filepath.Join(j.beside, "secret"))
	if err = errors.Join(err, readErr); err != nil {
		return got + ", and the folder beside is gone: " + err.Error(), nil //nolint:nilerr // what came of it is the answer
	}
	info, err := os.Stat(filepath.Join(j.beside, "secret"))
	if err != nil || len(entries) != 1 || string(text) != "secret" || info.Mode().Perm() != 0o666 {
		return got + ", and the folder beside has changed", err
	}
	return got, nil
}

// attempts makes calls in a new jail. Each has a method, an operation and pairs.
func (s *site) attempts(ctx context.Context, calls func(*jail) [][]string, more func(*jail, *answers) error) (string, error) {
	j, err := s.imprison(ctx)
	if err != nil {
		return "", err
	}
	defer j.leave()
	var got answers
	for _, c := range calls(j) {
		a, err := j.ask(ctx, c[0], c[1], c[2:]...)
		if err != nil {
			return "", err
		}
		got.add(a.String())
		if a.status < http.StatusBadRequest {
			got.add("served: " + strings.Join(c, " "))
		}
	}
	if more != nil {
		if err := more(j, &got); err != nil {
			return "", err
		}
	}
	return j.untouched(got.String())
}
