package firecrest_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/httpapi/firecrest/s3"
	"sallyport/internal/s3server"
)

var (
	uploadShape = map[string]shape{"transferJob": transferShape["transferJob"], "transferDirectives": map[string]shape{
		"transferMethod": "string", "partsUploadUrls": []shape{"string"}, "completeUploadUrl": "string", "maxPartSize": "int",
	}}
	downloadShape = map[string]shape{"transferJob": transferShape["transferJob"], "transferDirectives": map[string]shape{
		"transferMethod": "string", "downloadUrl": "string",
	}}
)

// stagingSite is a cluster with a real S3 server, whose parts have 5 MiB.
func stagingSite(t *testing.T) (*cluster, *s3server.Server) {
	t.Helper()
	server, err := s3server.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	storage, err := s3.New(s3.Config{
		PublicURL: server.URL, Region: s3server.Region, Bucket: s3server.Bucket,
		AccessKeyID: s3server.AccessKeyID, SecretAccessKey: s3server.SecretAccessKey, PartSize: s3.MinPart,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = storage.Close() })
	return slurmWith(t, storage), server
}

// send is a request to an address of the storage, as a client makes it.
func send(t *testing.T, method, address string, body []byte) (int, http.Header, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, text
}

// put uploads content in the way of pyfirecrest.
func put(t *testing.T, d map[string]any, content []byte) {
	t.Helper()
	partSize, err := d["maxPartSize"].(json.Number).Int64()
	if err != nil {
		t.Fatal(err)
	}
	size, list := int(partSize), "<CompleteMultipartUpload>"
	for i, address := range d["partsUploadUrls"].([]any) {
		part := content[i*size : min(len(content), (i+1)*size)]
		status, header, text := send(t, http.MethodPut, address.(string), part)
		if status != http.StatusOK {
			t.Fatalf("part %d: %d %s", i+1, status, text)
		}
		list += fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1, header.Get("ETag"))
	}
	if status, _, text := send(t, http.MethodPost, d["completeUploadUrl"].(string), []byte(list+"</CompleteMultipartUpload>")); status != http.StatusOK {
		t.Fatalf("completing: %d %s", status, text)
	}
}

func (c *cluster) transferLogs(answer map[string]any) (output, errors string) {
	c.t.Helper()
	logs := answer["transferJob"].(map[string]any)["logs"].(map[string]any)
	read := func(name string) string {
		text, err := os.ReadFile(logs[name].(string))
		if err != nil {
			c.t.Error(err)
		}
		return string(text)
	}
	return read("outputLog"), read("errorLog")
}

func TestFilesGoThroughStorageBothWays(t *testing.T) {
	t.Parallel()
	c, server := stagingSite(t)
	home := c.node.Home("alice")
	c.root("cd " + home + " && mkdir -p staged && chown alice staged")
	v := c.as("alice", "GET", "/status/systems", "")
	if !strings.Contains(v.body, `"data_transfer":{"serviceType":"s3","name":"s3-storage","privateUrl":"**********","publicUrl":"`+server.URL+`"`) || strings.Contains(v.body, s3server.SecretAccessKey) {
		t.Errorf("status of systems: %s", v.body)
	}
	content := make([]byte, 2*s3.MinPart+12345)
	_, _ = rand.Read(content)
	for name, data := range map[string][]byte{
		"three parts": content, "it's; $(id)\r\n\"x\" [1-2]": content[:100], "empty": nil,
	} {
		target := home + "/staged/" + name
		body := jsonOf(t, map[string]any{"path": target, "transferDirectives": map[string]any{"transferMethod": "s3", "fileSize": fmt.Sprint(len(data))}})
		up := c.as("alice", "POST", "/filesystem/clustera/transfer/upload", body).answers(201, uploadShape)
		d := up["transferDirectives"].(map[string]any)
		job := up["transferJob"].(map[string]any)["jobId"].(string)
		if n := len(d["partsUploadUrls"].([]any)); n != max(1, (len(data)+s3.MinPart-1)/s3.MinPart) {
			t.Errorf("%q: %d parts", name, n)
		}
		// Neither the script nor a command line tells the addresses.
		if m := c.as("alice", "GET", jobsPath+"/"+job+"/metadata", ""); strings.Contains(m.body, "X-Amz-Signature") {
			t.Errorf("%q: the script of the job has an address", name)
		}
		if ps := c.root("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"); strings.Contains(ps, "X-Amz-Signature") {
			t.Errorf("%q: a command line has an address", name)
		}
		put(t, d, data)
		c.await("alice", job, "COMPLETED")
		if output, errors := c.transferLogs(up); !strings.Contains(output, "File was successfully downloaded (size: ") || errors != "" {
			t.Errorf("%q: logs %q and %q", name, output, errors)
		}
		if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%q: %d bytes on the system, %v", name, len(got), err)
		}

		down := c.as("alice", "POST", "/filesystem/clustera/transfer/download", jsonOf(t, map[string]any{
			"path": target, "transferDirectives": map[string]any{"transferMethod": "s3"},
		})).answers(201, downloadShape)
		c.await("alice", down["transferJob"].(map[string]any)["jobId"].(string), "COMPLETED")
		if output, errors := c.transferLogs(down); !strings.Contains(output, "Multipart file upload successfully completed\n") || errors != "" {
			t.Errorf("%q: logs %q and %q", name, output, errors)
		}
		status, _, got := send(t, http.MethodGet, down["transferDirectives"].(map[string]any)["downloadUrl"].(string), nil)
		if status != http.StatusOK || !bytes.Equal(got, data) {
			t.Errorf("%q: %d with %d bytes from the storage", name, status, len(got))
		}
	}
	if left := c.root("find " + home + " -name '.f7t_transfer_*'"); left != "" {
		t.Errorf("what jobs needed is left: %s", left)
	}
	// Names of objects are the caller's folder, something that cannot be guessed, and a safe name.
	keys, err := os.ReadDir(server.Dir + "/" + s3server.Bucket + "/alice")
	if err != nil || len(keys) != 6 || !regexp.MustCompile(`^[a-z0-9]{26}$`).MatchString(keys[0].Name()) {
		t.Errorf("objects %v, %v", keys, err)
	}
}

func TestTransfersThatCannotBeAreRefusedBeforeAJob(t *testing.T) {
	t.Parallel()
	c, server := stagingSite(t)
	home := c.node.Home("alice")
	c.root("cd " + home + " && mkdir -p refused && echo x >refused/file && chown -R alice refused && mkfifo refused/pipe")
	ask := func(op, path string, directives map[string]any) answer {
		return c.as("alice", "POST", "/filesystem/clustera/transfer/"+op, jsonOf(t, map[string]any{"path": path, "transferDirectives": directives}))
	}
	up := func(size any) map[string]any { return map[string]any{"transferMethod": "s3", "fileSize": size} }
	down := map[string]any{"transferMethod": "s3"}
	ask("upload", "/etc/x", up(1)).fails(400, "does not match any")
	ask("upload", home+"/../bob/../../x", up(1)).fails(400, "does not match any")
	ask("download", "/etc/passwd", down).fails(400, "does not match any")
	ask("upload", home+"/refused", up(1)).fails(400, "Is a directory")
	ask("upload", home+"/refused/none/x", up(1)).fails(404, "No such file or directory")
	ask("upload", home+"/refused/file/x", up(1)).fails(400, "Not a directory")
	ask("download", home+"/refused/none", down).fails(404, "No such file or directory")
	ask("download", home+"/refused", down).fails(400, "Is a directory")
	ask("download", home+"/refused/pipe", down).fails(400, "Not a regular file")
	for _, size := range []any{nil, -1, "many", 1 << 50} {
		ask("upload", home+"/refused/x", up(size)).fails(400, "fileSize")
	}
	ask("upload", home+"/refused/x", map[string]any{"transferMethod": "wormhole", "fileSize": 1}).fails(400, "Requested transfer method is not available.")
	ask("upload", home+"/refused/x", map[string]any{"transferMethod": "carrier pigeon", "fileSize": 1}).fails(400, "transferMethod")
	ask("upload", home+"/refused/x", map[string]any{"fileSize": 1}).fails(400, "transferMethod")
	c.as("alice", "POST", "/filesystem/clustera/transfer/upload", jsonOf(t, map[string]any{"path": home + "/x"})).fails(400, "transferDirectives")
	plain := slurm(t)
	plain.as("alice", "POST", "/filesystem/clustera/transfer/upload", jsonOf(t, map[string]any{"path": home + "/refused/x", "transferDirectives": up(1)})).
		fails(400, "Requested transfer method is not available.")
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	a := ask("upload", home+"/refused/x", up(1))
	a.fails(503, "The s3 service for the requested system is unhealthy.")
	if a.header.Get("Retry-After") == "" || strings.Contains(a.body, server.URL) {
		t.Errorf("%v %s", a.header, a.body)
	}
	if left := c.root("find " + home + " -name '.f7t_transfer_*'"); strings.Contains(left, "refused") {
		t.Errorf("something is left: %s", left)
	}
}

// A job that cannot do its work says so, by its exit code too, and leaves what was there.
func TestAnUploadOfAnotherSizeChangesNothing(t *testing.T) {
	t.Parallel()
	c, _ := stagingSite(t)
	home := c.node.Home("alice")
	c.root("cd " + home + " && mkdir -p kept && echo before >kept/file && chown -R alice kept")
	up := c.as("alice", "POST", "/filesystem/clustera/transfer/upload", jsonOf(t, map[string]any{
		"path": home + "/kept/file", "transferDirectives": map[string]any{"transferMethod": "s3", "fileSize": 10},
	})).answers(201, uploadShape)
	put(t, up["transferDirectives"].(map[string]any), []byte("not ten bytes"))
	c.await("alice", up["transferJob"].(map[string]any)["jobId"].(string), "FAILED")
	if output, errors := c.transferLogs(up); strings.Contains(output, "successfully") || !strings.Contains(errors, "Unable to download file exit code:1 error: the file has 13 bytes and not 10") {
		t.Errorf("logs %q and %q", output, errors)
	}
	if text, err := os.ReadFile(home + "/kept/file"); string(text) != "before\n" {
		t.Errorf("the file is %q, %v", text, err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left := c.root("find " + home + "/kept " + home + " -maxdepth 1 -name '.f7t_transfer_" + "*.part'")
		if left == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %s", left)
		}
	}
}
