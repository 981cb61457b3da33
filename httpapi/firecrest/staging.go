package firecrest

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"regexp"
	"strings"

	"sallyport/executor"
	"sallyport/httpapi/firecrest/s3"
	"sallyport/httpapi/firecrest/scheduler"
	"sallyport/policy"
)

// A Staging is storage between clients and systems; see [s3.Storage].
type Staging interface {
	Stage(ctx context.Context, key string, size int64, from, to s3.Side) (s3.Object, error)
	Abort(ctx context.Context, o s3.Object)
	Describe() s3.Description
}

var (
	errNoTransfer = &failure{status: http.StatusBadRequest, code: "transfer_missing", message: "Requested transfer method is not available."}
	errStaging    = &failure{
		status: http.StatusServiceUnavailable, code: "storage_unavailable", retry: 5, message: "The s3 service for the requested system is unhealthy.",
	}
)

type stagedAnswer struct {
	TransferJob        transferView   `json:"transferJob"`
	TransferDirectives directivesView `json:"transferDirectives"`
}

type directivesView struct {
	TransferMethod    string   `json:"transferMethod"`
	PartsUploadURLs   []string `json:"partsUploadUrls,omitempty"`
	CompleteUploadURL string   `json:"completeUploadUrl,omitempty"`
	MaxPartSize       int64    `json:"maxPartSize,omitempty"`
	DownloadURL       string   `json:"downloadUrl,omitempty"`
	Coordinates       string   `json:"coordinates,omitempty"`
}

// A staged is a call of transfer/upload or transfer/download.
type staged struct {
	place
	account, workDir, id string
	size                 int64
	streamed             bool // over a WebSocket, and not through storage
	batch                batch
}

// secrets is the file with the addresses for the job. They stand neither in the job's
// script, which the scheduler's accounting keeps, nor on a command line.
func (s staged) secrets() string { return s.workDir + "/.f7t_transfer_" + s.id + ".curl" }

// stage reads what upload and download have in common.
func (c *call) stage() (s staged, size int64, err error) {
	b, err := c.body()
	if err != nil {
		return s, 0, err
	}
	s.account, s.place = b.text("account"), c.place(b, "path", "sourcePath")
	d := b.object("transferDirectives")
	method := d.oneOf("transferMethod", "", "s3", "streamer", "wormhole")
	size = d.whole("fileSize", -1)
	if method == "" {
		d.required("transferMethod")
	}
	if err := b.finish(); err != nil {
		return s, 0, err
	}
	s.id = randomName()
	c.submits = policy.Job{}
	if method != "streamer" {
		c.submits = c.jobOf(scheduler.Submission{Account: s.account, Env: defaultEnv()})
	}
	if s.streamed = method == "streamer"; s.streamed && c.handler.cfg.Streaming != nil {
		return s, size, nil
	}
	if method != "s3" || c.handler.cfg.Staging == nil {
		return s, 0, errNoTransfer
	}
	if s.batch, err = c.scheduler(); err != nil {
		return s, 0, err
	}
	s.workDir, err = c.workDir()
	return s, size, err
}

// uploadJob is POST transfer/upload: the client puts an object into the storage, and a job
// of his fetches it; or he sends the file through this service.
func uploadJob(c *call) error {
	s, size, err := c.stage()
	if err != nil {
		return err
	}
	if s.streamed {
		return c.withFiles(func(ctx context.Context, files *executor.Files) error {
			if err := s.settle(ctx, files, moving, false); err != nil {
				return err
			}
			if err := vacant(ctx, files, s.place); err != nil {
				return err
			}
			return c.offerStream(s, true) //nolint:contextcheck // a call has the context of its request
		})
	}
	if size < 0 || size > s3.MaxObject {
		f := fields{location: "body", prefix: "transferDirectives."}
		f.refuse("fileSize", "Input should be a number of bytes from 0 to %d", int64(s3.MaxObject))
		return f.finish()
	}
	s.size = size
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		if err := s.settle(ctx, files, moving, false); err != nil {
			return err
		}
		if err := roomFor(ctx, files, s.place); err != nil {
			return err
		}
		job, err := ingress(s)
		if err != nil {
			return err
		}
		o, err := c.object(ctx, s, s3.Client, s3.System)
		if err != nil {
			return err
		}
		return c.submitStaged(ctx, files, s, o, job, []string{o.GetURL}, directivesView{
			TransferMethod: "s3", PartsUploadURLs: o.PutURLs, CompleteUploadURL: o.CompleteURL, MaxPartSize: o.PartSize,
		})
	})
}

// settle replaces the path by the one that the node finds: jobs and streams come later. A target
// is replaced, and so it is not followed.
func (s *staged) settle(ctx context.Context, files *executor.Files, program string, follow bool) error {
	found, err := locate(ctx, files, program, located{place{s.name, strings.TrimSuffix(s.path, "/")}, follow})
	if err == nil {
		s.path = found[0]
	}
	return err
}

// roomFor refuses a target that the job could not write to for reasons that are known now.
func roomFor(ctx context.Context, files *executor.Files, p place) error {
	if err := parentOf(ctx, files, p); err != nil {
		return err
	}
	target, err := files.Stat(ctx, p.path, true)
	if err == nil && target.IsDir() {
		err = &executor.FileError{Op: "stat", Path: p.path, Err: executor.ErrIsDirectory}
	}
	if errors.Is(err, executor.ErrNotFound) {
		return nil
	}
	return fileFailure(moving, p.name, err)
}

// moving is the program that FirecREST's message about a target is of.
const moving = "mv: cannot move to"

// parentOf refuses a target whose folder there is not.
func parentOf(ctx context.Context, files *executor.Files, p place) error {
	parent, err := files.Aside().Stat(ctx, path.Dir(strings.TrimSuffix(p.path, "/")), true)
	if err == nil && !parent.IsDir() {
		err = &executor.FileError{Op: "stat", Path: p.path, Err: executor.ErrNotDirectory}
	}
	return fileFailure(moving, p.name, err)
}

// downloadJob is POST transfer/download: a job of the client's puts a file into the
// storage, where the client gets it.
func downloadJob(c *call) error {
	s, _, err := c.stage()
	if err != nil {
		return err
	}
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		if err := s.settle(ctx, files, "stat: cannot statx", true); err != nil {
			return err
		}
		info, err := files.Stat(ctx, s.path, true)
		switch {
		case err == nil && info.IsDir():
			err = &executor.FileError{Op: "stat", Path: s.path, Err: executor.ErrIsDirectory}
		case err == nil && !info.IsRegular():
			err = &executor.FileError{Op: "stat", Path: s.path, Err: executor.ErrNotRegular}
		}
		if err != nil {
			return fileFailure("stat: cannot statx", s.name, err)
		}
		s.size = info.Size
		if s.streamed {
			return c.offerStream(s, false) //nolint:contextcheck // a call has the context of its request
		}
		if info.Size > s3.MaxObject {
			return errUploadTooLarge
		}
		o, err := c.object(ctx, s, s3.System, s3.Client)
		if err != nil {
			return err
		}
		job, err := egress(s, o)
		if err != nil {
			return err
		}
		return c.submitStaged(ctx, files, s, o, job, append(o.PutURLs, o.CompleteURL), directivesView{
			TransferMethod: "s3", DownloadURL: o.GetURL,
		})
	})
}

var unsafeInKey = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// object begins the object of a transfer. Its name says whose it is and cannot be guessed.
func (c *call) object(ctx context.Context, s staged, from, to s3.Side) (s3.Object, error) {
	base := unsafeInKey.ReplaceAllString(path.Base(s.path), "_")
	key := c.caller.Login() + "/" + s.id + "/" + base[:min(len(base), 100)]
	// The addresses of a large object are megabytes.
	const perPart = 2 << 10
	if parts := s.size/c.handler.cfg.Staging.Describe().PartSize + 1; !c.output().Hold(min(parts, s3.MaxParts) * perPart) { //nolint:contextcheck // the memory is the request's
		return s3.Object{}, errLargeAnswers
	}
	o, err := c.handler.cfg.Staging.Stage(ctx, key, s.size, from, to)
	if err != nil {
		c.handler.log.ErrorContext(ctx, "storage for transfers does not do its part", slog.Any("error", err))
		return o, errStaging
	}
	return o, nil
}

// submitStaged gives the job its addresses, and submits it.
func (c *call) submitStaged(ctx context.Context, files *executor.Files, s staged, o s3.Object, t transfer, urls []string, d directivesView) (err error) {
	secrets := s.secrets()
	defer func() {
		if err != nil { // also when nobody knows whether there is a job: it could do nothing then
			clean := context.WithoutCancel(ctx)
			_ = files.Aside().Remove(clean, secrets)
			c.handler.cfg.Staging.Abort(clean, o)
		}
	}()
	var config strings.Builder
	for _, u := range urls {
		if strings.ContainsAny(u, "\"\\\n\r") {
			return errors.New("address of the storage cannot be written for curl")
		}
		config.WriteString("url = \"" + u + "\"\n")
	}
	_, err = files.Aside().Write(ctx, secrets, strings.NewReader(config.String()), executor.WriteOptions{Exclusive: true, Mode: executor.Permissions(0o600)})
	if err != nil {
		return fileFailure("bash: line 1:", secrets, err)
	}
	// Whoever repeats this has other addresses, which no earlier job would know.
	c.r.Header.Del("Idempotency-Key")
	job, err := c.submitTransfer(s.batch, s.workDir, s.id, s.account, t) //nolint:contextcheck // a call has the context of its request
	if err != nil {
		return err
	}
	return c.answer(http.StatusCreated, stagedAnswer{job, d})
}
