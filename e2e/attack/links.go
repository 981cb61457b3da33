package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// readsThroughLinks asks for what lies behind the links, in each way to read it.
func readsThroughLinks(ctx context.Context, s *site) (string, error) {
	return s.attempts(ctx, func(j *jail) (calls [][]string) {
		for _, path := range j.links()[:1] {
			for _, op := range []string{"ls", "stat", "head", "tail", "view", "download", "checksum", "file"} {
				calls = append(calls, []string{http.MethodGet, "ops/" + op, "path", path})
			}
		}
		for _, more := range [][]string{
			{"path", j.home + "/x/root/etc/passwd"}, {"path", j.home + "/x/up/etc/passwd"},
		} {
			calls = append(calls, append([]string{http.MethodGet, "ops/view"}, more...))
		}
		return append(calls, []string{http.MethodGet, "ops/stat", "path", j.home + "/x/out", "dereference", "true"},
			[]string{http.MethodGet, "ops/ls", "path", j.home + "/x/out/", "showHidden", "true"})
	}, nil)
}

// changesThroughLinks asks for changes behind the links, and for links to there.
func changesThroughLinks(ctx context.Context, s *site) (string, error) {
	return s.attempts(ctx, func(j *jail) (calls [][]string) {
		for _, path := range j.links() {
			calls = append(calls,
				[]string{http.MethodPut, "ops/chmod", "path", path, "mode", "700"},
				[]string{http.MethodPut, "ops/chmod", "path", path, "mode", "u+x"},
				[]string{http.MethodPut, "ops/chown", "path", path, "owner", login(0)},
				[]string{http.MethodPost, "ops/mkdir", "path", path + "/d", "parent", "true"},
				[]string{http.MethodPost, "ops/symlink", "path", j.home + "/plain", "linkPath", path + "l"},
				[]string{http.MethodPost, "ops/symlink", "path", path, "linkPath", j.home + "/l"},
				[]string{http.MethodDelete, "ops/rm", "path", path},
				[]string{http.MethodPost, "ops/compress", "path", j.home + "/plain", "targetPath", path + ".tgz"},
				[]string{http.MethodPost, "ops/extract", "path", j.home + "/a.tgz", "targetPath", filepath.Dir(path)},
			)
		}
		return append(calls, []string{http.MethodPost, "ops/compress", "path", j.home + "/x", "targetPath", j.home + "/plain.tgz", "dereference", "true"})
	}, func(j *jail, got *answers) error {
		for _, path := range j.links() {
			a, err := j.uploaded(ctx, filepath.Dir(path), "planted", []byte("id"))
			if err != nil {
				return err
			}
			got.add(a.String())
		}
		return nil
	})
}

// jobsThroughLinks asks for jobs that would work behind the links. Where they lead is
// looked up before a scheduler is asked.
func jobsThroughLinks(ctx context.Context, s *site) (string, error) {
	return s.attempts(ctx, func(j *jail) [][]string {
		path := j.links()[0]
		return [][]string{
			{http.MethodPost, "transfer/mv", "path", path, "targetPath", j.home + "/m"},
			{http.MethodPost, "transfer/mv", "path", j.home + "/plain", "targetPath", path},
			{http.MethodPost, "transfer/cp", "path", path, "targetPath", j.home + "/m"},
			{http.MethodPost, "transfer/cp", "path", j.home + "/plain", "targetPath", path},
			{http.MethodPost, "transfer/compress", "path", path, "targetPath", j.home + "/m.tgz"},
			{http.MethodPost, "transfer/extract", "path", j.home + "/a.tgz", "targetPath", filepath.Dir(path)},
			{http.MethodDelete, "transfer/rm", "path", path},
		}
	}, func(j *jail, got *answers) error {
		out := j.home + "/x/out"
		for _, job := range []map[string]any{
			{"script": "#!/bin/sh\nid\n", "workingDirectory": out},
			{"script": "#!/bin/sh\nid\n", "workingDirectory": j.home, "standardOutput": out + "/planted"},
			{"scriptPath": out + "/secret", "workingDirectory": j.home},
		} {
			a, err := j.call(ctx, call{path: "/compute/node/jobs", token: j.token, body: map[string]any{"job": job}})
			if err != nil {
				return err
			}
			got.add(a.String())
		}
		return nil
	})
}

// archivesThatLeadOut extracts archives whose entries would lie elsewhere, and looks for
// them there.
func archivesThatLeadOut(ctx context.Context, s *site) (string, error) {
	j, err := s.imprison(ctx)
	if err != nil {
		return "", err
	}
	defer j.leave()
	var got []string
	for _, entries := range [][]string{
		{"out/planted"},
		{"../planted"},
		{"../../planted"},
		{j.beside + "/planted"},
		{"root" + j.beside + "/planted"},
		{"l -> " + j.beside, "l/planted"},
		{"h => " + j.beside + "/secret", "h"},
		{"m -> " + j.beside + "/secret", "h => m", "h"},
		{"d/", "d/l -> ../../..", "d/l/planted"},
	} {
		if _, err := j.extract(ctx, entries...); err != nil { // served or not
			return "", err
		}
		for _, dir := range []string{j.home, filepath.Dir(j.home), "/"} {
			name := filepath.Join(dir, "planted")
			if _, err := os.Lstat(name); err == nil {
				got = append(got, "out with "+strings.Join(entries, " and "))
				_ = os.Remove(name) // or it counts for the next too
			}
		}
	}
	if got == nil {
		got = append(got, "nothing left the folder")
	}
	return j.untouched(strings.Join(got, ", "))
}

// neighbours asks for paths that are not in the folder as they are written.
func neighbours(ctx context.Context, s *site) (string, error) {
	return s.attempts(ctx, func(j *jail) (calls [][]string) {
		for _, path := range []string{
			j.beside + "/secret", j.beside, filepath.Dir(j.home), j.home + "/..", j.home + "/../" + filepath.Base(j.beside) + "/secret",
			j.home + "/x/../../" + filepath.Base(j.beside) + "/secret", "/" + j.home + "/../../../../../../etc/passwd", "/etc/passwd",
			strings.TrimPrefix(j.home, "/") + "/plain", "../" + filepath.Base(j.beside) + "/secret",
		} {
			calls = append(calls, []string{http.MethodGet, "ops/view", "path", path})
		}
		return calls
	}, nil)
}
