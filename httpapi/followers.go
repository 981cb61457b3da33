package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxFollowers bounds the requests that wait for revocations; more are answered
	// at once.
	maxFollowers = 64
	// maxFollowersPerAddress bounds those of one client address: waiting takes no token,
	// and nobody is to take the places of all others.
	maxFollowersPerAddress = 16
	// maxWait bounds how long one waits.
	maxWait = time.Minute
)

// preferredWait is the time of "Prefer: wait=SECONDS" (RFC 7240 §4.3); 0 if there is
// none, or none that can be read.
func preferredWait(r *http.Request) time.Duration {
	for preference := range strings.SplitSeq(strings.Join(r.Header.Values("Prefer"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		if n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 16); err == nil {
			return min(time.Duration(n)*time.Second, maxWait)
		}
	}
	return 0
}

// awaitRevocations returns the list when it is another than the client's, or when
// the client has waited for as long as it wants to.
func (a *API) awaitRevocations(w http.ResponseWriter, r *http.Request, list *shared, wait time.Duration) *shared {
	// With a body that was not read it would not show that the client has gone.
	if a.leaving.Err() != nil || r.ContentLength != 0 {
		return list
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	x := exchangeFrom(r.Context())
	place := a.lanes.followers.Join(x.seat.area, x.seat.rank, cancel)
	if place == nil {
		return list
	}
	defer place.Leave()
	place.Yield()
	x.seat.stand() // the answer has a place again
	w.Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(wait.Seconds())))
	defer context.AfterFunc(a.leaving, cancel)() //nolint:contextcheck // Drain ends every wait
	for ctx.Err() == nil {
		// Before the list: what changes in between is then seen.
		version := a.cfg.Certificates.RevocationVersion()
		if list = a.sheets.list.of(a.cfg.Certificates.RevocationList()); !list.held(r) {
			break
		}
		a.cfg.Certificates.AwaitRevocationList(ctx, version)
	}
	return list
}
