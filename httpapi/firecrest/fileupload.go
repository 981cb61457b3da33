package firecrest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"

	"sallyport/executor"
	"sallyport/httpapi"
)

var (
	errUploadTooLarge = &failure{status: http.StatusRequestEntityTooLarge, message: "File to upload is too large.", code: "file_too_large"}
	errDigest         = &failure{status: http.StatusBadRequest, message: "The file does not have this SHA-256. Nothing was changed.", code: "digest_mismatch"}
	errMultipart      = &failure{status: http.StatusBadRequest, message: "The body is not a whole multipart/form-data.", code: "body_malformed"}
)

// fileDigest names the header that says what was stored.
const fileDigest = "F7T-SHA256"

// An upload is a call of ops/upload.
type upload struct {
	place
	options executor.WriteOptions
	digest  string // in hex; empty: not to be verified
	// name is the file's, as the client wrote it.
	name string
}

// uploadFile is POST ops/upload: the file goes to the node as it comes in, and takes its
// name when it is whole. The parameters overwrite=false and sha256=… are additions.
func uploadFile(c *call) error {
	query := c.query()
	u := upload{place: c.place(query, "path"), digest: strings.ToLower(query.text("sha256")), options: executor.WriteOptions{
		Exclusive: !query.flag("overwrite", true), Max: c.handler.cfg.MaxFile,
	}}
	if raw, err := hex.DecodeString(u.digest); u.digest != "" && (err != nil || len(raw) != sha256.Size) {
		query.refuse("sha256", "Input should be 64 hexadecimal digits")
	}
	if err := query.finish(); err != nil {
		return err
	}
	const around = 64 << 10 // bytes of a body that are not the file's
	if c.r.ContentLength > u.options.Max+around {
		return errUploadTooLarge
	}
	// A form's headers are kept in memory: all that comes before the file is bounded.
	preface := &io.LimitedReader{R: httpapi.StreamBody(c.w, c.r, u.options.Max+around), N: around}
	body := &watchedReader{Reader: preface}
	part, err := filePart(c.r.Header.Get("Content-Type"), body)
	preface.N = u.options.Max + around
	if body.err != nil {
		return body.err
	}
	if err != nil {
		return err
	}
	if u.name, err = fileName(part.Header.Get("Content-Disposition")); err != nil {
		return err
	}
	written, err := c.store(u, part, body)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, body) // of no interest, but the connection can be used again
	c.w.Header().Set(fileDigest, hex.EncodeToString(written.SHA256[:]))
	return c.noContent()
}

// store writes a part as a file. The body is read here and nowhere else, since it is the
// request's and must not be read when the request is over; the writer, which may give up
// in between, has a goroutine of its own.
func (c *call) store(u upload, part io.Reader, body *watchedReader) (executor.Written, error) {
	files, err := c.openFiles(c.r.Context())
	if err != nil {
		return executor.Written{}, err
	}
	defer files.Close()
	var written executor.Written
	var failed error
	from, to := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		target := strings.TrimSuffix(u.path, "/") + "/" + meant(u.name)
		written, failed = files.Write(c.r.Context(), target, from, u.options)
		_ = from.CloseWithError(errWriterGone) // never fails
	}()
	digest := sha256.New()
	_, err = io.Copy(to, io.TeeReader(part, digest))
	switch {
	case errors.Is(err, errWriterGone): // it knows why
	case body.err != nil:
		err = body.err
	case err != nil:
		err = errMultipart
	case u.digest != "" && u.digest != hex.EncodeToString(digest.Sum(nil)):
		err = errDigest
	}
	_ = to.CloseWithError(err) // never fails
	<-done
	if errors.Is(failed, executor.ErrFileLimit) {
		return written, errUploadTooLarge
	}
	return written, fileFailure("bash: line 1:", u.place.name+"/"+u.name, failed)
}

// errWriterGone says that the writer of a file wants no more of it.
var errWriterGone = errors.New("writer is gone")

// A watchedReader keeps the error of a body, which a parser of it would wrap.
type watchedReader struct {
	io.Reader
	err error // nil at its end
}

// Read implements io.Reader.
func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// filePart goes to the field "file" of a form.
func filePart(mediaType string, body io.Reader) (*multipart.Part, error) {
	kind, parameters, err := mime.ParseMediaType(mediaType)
	if err != nil || kind != "multipart/form-data" || parameters["boundary"] == "" {
		return nil, errMultipart
	}
	form := multipart.NewReader(body, parameters["boundary"])
	for {
		part, err := form.NextRawPart()
		switch {
		case errors.Is(err, io.EOF):
			return nil, refuseFile("Field required")
		case err != nil:
			return nil, errMultipart
		case part.FormName() == "file":
			return part, nil
		}
	}
}

// fileName is that of a file in a form. [multipart.Part.FileName] would take the last
// part of a path in silence.
func fileName(disposition string) (string, error) {
	_, parameters, err := mime.ParseMediaType(disposition)
	name, ok := parameters["filename"]
	switch {
	case err != nil, !ok, name == "":
		return "", refuseFile("Value should be a file with a name")
	case name == ".", name == "..", strings.ContainsAny(name, "/\x00"):
		return "", refuseFile("Name of the file should be no path")
	}
	return name, nil
}

func refuseFile(message string) error {
	f := &fields{location: "body"}
	f.refuse("file", "%s", message)
	return f.finish()
}
