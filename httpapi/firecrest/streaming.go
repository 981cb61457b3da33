package firecrest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"sallyport/executor"
	"sallyport/httpapi"
	"sallyport/httpapi/firecrest/stream"
	"sallyport/store/audit"
)

// streamOperations are the calls of streams. Their tickets say who comes: they are random,
// good once, and soon over.
func streamOperations() []operation {
	return []operation{{method: http.MethodGet, path: "/streams/{ticket}", public: true, serve: moveStream}}
}

var errNoStream = &failure{
	status: http.StatusForbidden, code: "transfer_missing",
	message: "This is no transfer that waits: it was begun already, its time is over, or it was asked for from another address.",
}

// offerStream answers with where the client brings a file, or fetches one.
func (c *call) offerStream(s staged, upload bool) error {
	dir, err := c.workDir()
	if err != nil {
		return err
	}
	now, id := time.Now(), streamPrefix+s.id
	offer := &fileStream{
		id: id, caller: c.caller, system: c.system, file: s.place, upload: upload,
		begun: now, secret: randomName(), until: now.Add(c.handler.cfg.Streaming.Wait),
		job: transferView{JobID: id, System: c.system.Name, WorkingDirectory: dir, Logs: logsOf(dir, s.id)},
	}
	if end := c.caller.Expires(); end.Before(offer.until) {
		offer.until = end
	}
	if !c.handler.cfg.Streaming.AnyAddress {
		offer.source = audit.RequestFrom(c.r.Context()).SourceIP
	}
	coordinates, err := c.handler.cfg.Streaming.coordinates(offer.secret)
	if err != nil {
		return err
	}
	if err := c.handler.streams.offer(offer, now); err != nil {
		return err
	}
	return c.answer(http.StatusCreated, stagedAnswer{offer.job, directivesView{TransferMethod: "streamer", Coordinates: coordinates}})
}

// Door serves the address that clients know, which is one without TLS: who has the secret
// of a stream is sent to the API's own, with another secret, and nothing else is said.
func (h *Handler) Door() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secret, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		ticket := ""
		if source, ok := httpapi.PeerAddr(r); ok && r.Method == http.MethodGet {
			ticket = h.streams.admit(secret, source.String())
		}
		if ticket == "" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(errNoStream.status)
			_ = json.NewEncoder(w).Encode(map[string]any{ // a client that is gone needs no answer
				"type": "about:blank", "title": "No such transfer", "status": errNoStream.status, "code": errNoStream.code, "detail": errNoStream.message,
			})
			return
		}
		w.Header().Set("Location", h.cfg.Streaming.URL+"/streams/"+ticket)
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
}

// moveStream is where a file goes through.
func moveStream(c *call) error {
	if c.handler.cfg.Streaming == nil || !strings.EqualFold(c.r.Header.Get("Upgrade"), "websocket") {
		return errNoStream
	}
	ctx, cancel := context.WithCancel(c.r.Context())
	defer cancel()
	s := c.handler.streams.enter(c.vars["ticket"], audit.RequestFrom(ctx).SourceIP, cancel)
	if s == nil {
		return errNoStream
	}
	if err := httpapi.Enter(c.r, s.caller); err != nil {
		c.handler.streams.finish(s, streamFailed, "it was refused: too many requests of yours are in flight, or your access was revoked")
		return err
	}
	c.caller, c.system = s.caller, s.system
	conn, err := websocket.Accept(c.w, c.r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil { // it has answered
		c.handler.streams.finish(s, streamFailed, "the client does not speak WebSocket")
		return nil
	}
	defer conn.CloseNow() //nolint:errcheck // what was sent is sent
	err = c.move(ctx, conn, s)
	if err == nil {
		c.handler.streams.finish(s, streamDone, "")
		return conn.Close(websocket.StatusNormalClosure, "")
	}
	cause := streamFailure(err)
	c.handler.log.WarnContext(ctx, "a transfer by streaming failed", slog.String("login", s.caller.Login()), slog.Any("error", err))
	c.handler.streams.finish(s, streamFailed, cause)
	_ = conn.Close(websocket.StatusInternalError, cause[:min(len(cause), 100)]) // most often the client is gone
	return nil
}

// move moves the file, and leaves the log that clients look for.
func (c *call) move(ctx context.Context, conn *websocket.Conn, s *fileStream) error {
	files, err := c.openFiles(ctx)
	if err != nil {
		return err
	}
	defer files.Close()
	log, text := s.job.Logs.OutputLog, "File was successfully downloaded\n"
	if s.upload {
		text = "File was successfully uploaded\n"
		err = c.receive(ctx, conn, files, s)
	} else {
		err = c.send(ctx, conn, files, s)
	}
	if err != nil {
		log, text = s.job.Logs.ErrorLog, "Unable to move file exit code:1 error: "+streamFailure(err)+"\n"
	}
	// Who waits for the end of the job reads it then. That it is missing is no failure.
	_, logErr := files.Aside().Write(ctx, log, strings.NewReader(text), executor.WriteOptions{Mode: executor.Permissions(0o600)})
	if logErr != nil {
		c.handler.log.InfoContext(ctx, "the log of a transfer cannot be written", slog.Any("error", logErr))
	}
	return err
}

func (c *call) receive(ctx context.Context, conn *websocket.Conn, files *executor.Files, s *fileStream) error {
	in, err := stream.Receive(ctx, conn, c.handler.cfg.Streaming.MaxUpload)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = files.Write(ctx, s.file.path, in, executor.WriteOptions{Exclusive: true})
	return fileFailure("streamer:", s.file.name, err)
}

func (c *call) send(ctx context.Context, conn *websocket.Conn, files *executor.Files, s *fileStream) error {
	file, err := files.Open(ctx, s.file.path)
	if err != nil {
		return fileFailure("streamer:", s.file.name, err)
	}
	defer file.Close()
	return fileFailure("streamer:", s.file.name, stream.Send(ctx, conn, file.Info().Size, file.WriteRange))
}

// streamFailure is what the owner of a stream is told; the rest is in the log.
func streamFailure(err error) string {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.message
	}
	if errors.Is(err, stream.ErrPeer) || errors.Is(err, stream.ErrTooLarge) {
		return err.Error()
	}
	return "the transfer was cut"
}

// vacant refuses a target that there is: a stream replaces nothing.
func vacant(ctx context.Context, files *executor.Files, p place) error {
	if err := parentOf(ctx, files, p); err != nil {
		return err
	}
	_, err := files.Stat(ctx, p.path, false)
	switch {
	case err == nil:
		err = &executor.FileError{Op: "open", Path: p.path, Err: executor.ErrExists}
	case errors.Is(err, executor.ErrNotFound):
		return nil
	}
	return fileFailure("streamer:", p.name, err)
}

// streamOf is the stream that the job in the path is.
func (c *call) streamOf() *fileStream {
	return c.handler.streams.find(c.person(), c.system, c.vars["job"])
}
