package firecrest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"sallyport/executor"
)

var (
	errDownloadTooLarge = &failure{status: http.StatusRequestEntityTooLarge, message: "File to download is too large.", code: "file_too_large"}
	errRange            = &failure{status: http.StatusRequestedRangeNotSatisfiable, message: "The file has no such range.", code: "range_invalid"}
)

// downloadFile is GET ops/download. It streams the bytes of a file, or one range of
// them: of a file that is larger than the limit, parts can be had.
func downloadFile(c *call) error {
	query := c.query()
	p := c.place(query, "path")
	if err := query.finish(); err != nil {
		return err
	}
	ctx := c.r.Context() // it takes as long as the client takes
	files, err := c.openFiles(ctx)
	if err != nil {
		return err
	}
	defer files.Close()
	file, err := files.Open(ctx, p.path)
	if err != nil {
		return fileFailure("base64:", p.name, err)
	}
	defer file.Close()
	return fileFailure("base64:", p.name, c.sendFile(ctx, file))
}

func (c *call) sendFile(ctx context.Context, file *executor.File) error {
	info := file.Info()
	out := &lateHeader{w: c.w, status: http.StatusOK, header: http.Header{
		"Content-Type": {"application/octet-stream"}, "Last-Modified": {info.Modified.UTC().Format(http.TimeFormat)},
	}}
	if info.Size == 0 {
		return c.sendUnsized(ctx, file, out)
	}
	part, ok := rangeOf(c.r.Header, info.Size)
	if ok && part.from >= part.to {
		c.w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", info.Size))
		return errRange
	}
	if ok {
		out.status = http.StatusPartialContent
		out.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.from, part.to-1, info.Size))
	} else {
		part = span{0, info.Size}
	}
	length := part.to - part.from
	if length > c.handler.cfg.MaxFile {
		return errDownloadTooLarge
	}
	out.header.Set("Accept-Ranges", "bytes")
	out.header.Set("Content-Length", strconv.FormatInt(length, 10))
	if c.r.Method == http.MethodHead {
		out.send()
		return nil
	}
	n, err := file.WriteRange(ctx, out, part.from, length)
	if err == nil && n < length {
		err = fmt.Errorf("the file has become shorter while it was read, by %d bytes", length-n)
	}
	return err
}

// sendUnsized sends a file that is empty or, as those of /proc, does not say how large
// it is.
func (c *call) sendUnsized(ctx context.Context, file *executor.File, out *lateHeader) error {
	n, err := file.WriteRange(ctx, out, 0, c.handler.cfg.MaxFile)
	if err != nil {
		return err
	}
	if n == c.handler.cfg.MaxFile {
		return errors.New("a file without a size is longer than the limit")
	}
	out.send()
	return nil
}

// A lateHeader sends the header with the first bytes, so that an error until then is an
// answer of its own.
type lateHeader struct {
	w      http.ResponseWriter
	status int
	header http.Header
	sent   bool
}

func (l *lateHeader) send() {
	if !l.sent {
		l.sent = true
		maps.Copy(l.w.Header(), l.header)
		l.w.WriteHeader(l.status)
	}
}

// Write implements io.Writer.
func (l *lateHeader) Write(p []byte) (int, error) {
	l.send()
	return l.w.Write(p)
}

// rangeOf returns the range that a client asks for (RFC 9110 §14.1.2), which is empty if
// the file does not have it. More than one, and what is no range, means the whole file;
// so does If-Range, since there is nothing that tells versions of a file apart.
func rangeOf(h http.Header, size int64) (span, bool) {
	text, ok := strings.CutPrefix(h.Get("Range"), "bytes=")
	first, last, two := strings.Cut(text, "-")
	if !ok || !two || h.Get("If-Range") != "" {
		return span{}, false
	}
	if first == "" {
		n, err := strconv.ParseUint(last, 10, 63)
		return span{max(0, size-int64(n)), size}, err == nil
	}
	from, err := strconv.ParseUint(first, 10, 63)
	if err != nil {
		return span{}, false
	}
	to := size
	if last != "" {
		n, err := strconv.ParseUint(last, 10, 62)
		if err != nil || n < from {
			return span{}, false
		}
		to = min(size, int64(n)+1)
	}
	return span{int64(from), to}, true
}
