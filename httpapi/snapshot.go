package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"sallyport/store/audit"
)

// A Snapshotter copies the records of the service, as they are at one moment.
type Snapshotter interface {
	// Snapshot returns a file at its beginning, for the caller to close.
	Snapshot(ctx context.Context) (*os.File, error)
}

// maxReasonBytes bounds the reason of an admin act.
const maxReasonBytes = 200

// snapshot is POST /v1/admin/snapshot {"reason"}: the records of the service as
// octets of a known number. They hold what a CA must not lose, so that taking them
// is an admin act: recorded before the first byte, with who and why.
func (a *API) snapshot(w http.ResponseWriter, r *http.Request) error {
	body, err := a.readObject(w, r, maxAdminBody)
	if err != nil {
		return err
	}
	reason := body.reason()
	if err := body.finish(); err != nil {
		return err
	}
	actor := actorOf(r.Context(), reason)
	err = a.cfg.Audit.Record(r.Context(), audit.Event{
		Action: audit.AdminAct, Outcome: audit.Unknown,
		Detail: map[string]string{"act": "backup", "uid": strconv.Itoa(actor.UID), "reason": actor.Reason},
	})
	if err != nil {
		return err
	}
	f, err := a.cfg.Snapshots.Snapshot(r.Context())
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // an unnamed file that was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	w.WriteHeader(http.StatusOK)
	if _, err := io.Copy(w, f); err != nil {
		return fmt.Errorf("%w: %w", errClientGone, err)
	}
	return nil
}

// maxAdminBody bounds the body of an admin act.
const maxAdminBody = 64 << 10

// reason takes why an administrator acts: printable text that the audit log keeps.
func (o *object) reason() string {
	text := strings.TrimSpace(o.text("reason"))
	if text == "" || len(text) > maxReasonBytes || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		o.refuse("reason", "A reason is needed: one line of at most "+strconv.Itoa(maxReasonBytes)+" bytes.")
	}
	return text
}
