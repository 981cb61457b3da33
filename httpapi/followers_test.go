package httpapi

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/ca"
	"sallyport/ca/revocation"
	"sallyport/httpapi/places"
)

const revokedPath = "/v1/ca/revoked-keys"

// waits sends a request that waits for the next list, and returns its answer later.
func waits(t *testing.T, s *service, tag, prefer string) <-chan *httptest.ResponseRecorder {
	t.Helper()
	answers := make(chan *httptest.ResponseRecorder, 1)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, revokedPath, nil)
	r.Header.Set("If-None-Match", tag)
	r.Header.Set("Prefer", prefer)
	go func() {
		rec := httptest.NewRecorder()
		s.api.Handler().ServeHTTP(rec, r)
		answers <- rec
	}()
	return answers
}

// tagNow is that of the list as it is.
func tagNow(t *testing.T, s *service) string {
	t.Helper()
	rec := httptest.NewRecorder()
	s.api.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, revokedPath, nil))
	return rec.Header().Get("ETag")
}

func TestWhoWaitsForRevocationsIsToldAtOnce(t *testing.T) {
	t.Parallel()
	s, authority := issues(t)
	tag := tagNow(t, s)
	waiting := waits(t, s, tag, "respond-async, wait=60")
	select {
	case rec := <-waiting:
		t.Fatalf("answered %d although nothing has changed", rec.Code)
	case <-time.After(300 * time.Millisecond):
	}
	if _, err := authority.Revoke(t.Context(), ca.Actor{}, revocation.Act{Kind: revocation.KeyID, Value: "v1:x"}, nil); err != nil {
		t.Fatal(err)
	}
	rec := <-waiting
	if rec.Code != http.StatusOK || rec.Header().Get("ETag") == tag || rec.Header().Get("Preference-Applied") != "wait=60" || rec.Body.Len() == 0 {
		t.Errorf("got %d with %v", rec.Code, rec.Header())
	}
}

func TestAWaitEndsWithoutAChange(t *testing.T) {
	t.Parallel()
	s, _ := issues(t)
	tag := tagNow(t, s)
	rec := <-waits(t, s, tag, "wait=1")
	if rec.Code != http.StatusNotModified || rec.Header().Get("Preference-Applied") != "wait=1" {
		t.Errorf("after the time: %d with %v", rec.Code, rec.Header())
	}
	for _, prefer := range []string{"", "wait", "wait=0", "wait=-1", "wait=1e9", "wait=99999999999", "return=minimal"} {
		rec := <-waits(t, s, tag, prefer)
		if rec.Code != http.StatusNotModified || rec.Header().Get("Preference-Applied") != "" {
			t.Errorf("Prefer: %q: %d with %v", prefer, rec.Code, rec.Header())
		}
	}
	if rec := <-waits(t, s, `"another"`, "wait=60"); rec.Code != http.StatusOK {
		t.Errorf("with another list: %d", rec.Code)
	}
}

func TestWaitsAreBoundedAndEndWithTheDrain(t *testing.T) {
	t.Parallel()
	s, _ := issues(t)
	tag := tagNow(t, s)
	waiting := waits(t, s, tag, "wait=60")
	for s.api.lanes.followers.Count().Addresses == 0 {
		time.Sleep(time.Millisecond)
	}
	here := netip.MustParseAddr("192.0.2.1") // of httptest
	var others []*places.Member
	for range maxFollowersPerAddress - 1 {
		others = append(others, s.api.lanes.followers.Join(here, places.Stranger, nil))
	}
	if slices.Contains(others, nil) || s.api.lanes.followers.Join(here, places.Stranger, nil) != nil {
		t.Error("one address has another number of places than its own")
	}
	if rec := <-waits(t, s, tag, "wait=60"); rec.Code != http.StatusNotModified || rec.Header().Get("Preference-Applied") != "" {
		t.Errorf("one too many waits: %d with %v", rec.Code, rec.Header())
	}
	for _, m := range others {
		m.Leave()
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, revokedPath, strings.NewReader("x"))
	r.Header.Set("If-None-Match", tag)
	r.Header.Set("Prefer", "wait=60")
	rec := httptest.NewRecorder()
	if s.api.Handler().ServeHTTP(rec, r); rec.Code != http.StatusNotModified || rec.Header().Get("Preference-Applied") != "" {
		t.Errorf("with a body: %d with %v", rec.Code, rec.Header())
	}
	s.api.Drain()
	if rec := <-waiting; rec.Code != http.StatusNotModified {
		t.Errorf("got %d", rec.Code)
	}
	if rec := <-waits(t, s, tag, "wait=60"); rec.Code != http.StatusNotModified || rec.Header().Get("Preference-Applied") != "" {
		t.Errorf("after the drain: %d with %v", rec.Code, rec.Header())
	}
}
