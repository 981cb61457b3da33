package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
)

// A shared document is bytes for everyone, with the headers that go with them.
type shared struct {
	data        []byte
	tag, length []string // header values, made once
}

func newShared(data []byte) *shared {
	sum := sha256.Sum256(data)
	return &shared{data: data, tag: []string{`"` + hex.EncodeToString(sum[:16]) + `"`}, length: []string{strconv.Itoa(len(data))}}
}

// A sheet makes each document once: as long as its owner shows the same bytes, not equal
// ones, a request costs neither a copy nor a hash. The owner never changes bytes that it
// has shown.
type sheet struct{ latest atomic.Pointer[shared] }

func (s *sheet) of(data []byte) *shared {
	latest := s.latest.Load()
	if latest != nil && len(latest.data) == len(data) && (len(data) == 0 || &latest.data[0] == &data[0]) {
		return latest
	}
	fresh := newShared(data)
	s.latest.Store(fresh)
	return fresh
}

// serve answers with bytes that are for everyone, with a strong ETag, or with 304 to a
// client that has them (RFC 9110 §13.1.2). What login nodes poll needs no token: public
// keys and a revocation list are no secrets, and a node that cannot fetch them keeps
// trusting what it should not. Caches must ask each time.
func (d *shared) serve(w http.ResponseWriter, r *http.Request, mediaType string) error {
	media, _, _ := strings.Cut(mediaType, ";")
	if _, err := negotiate(r, media); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h["Etag"] = d.tag
	if d.held(r) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", mediaType)
	h["Content-Length"] = d.length
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(d.data) // a client that is gone needs no answer
	return nil
}

// held says whether the client has the bytes, by its If-None-Match.
func (d *shared) held(r *http.Request) bool {
	for _, values := range r.Header["If-None-Match"] {
		for known := range strings.SplitSeq(values, ",") {
			if known = strings.TrimPrefix(strings.TrimSpace(known), "W/"); known == d.tag[0] || known == "*" {
				return true
			}
		}
	}
	return false
}

// sheets are what the routes for everyone show.
type sheets struct{ bundle, list, manifest, signature, signedBundle, signedList sheet }

// signedFile is the file that a node asks for by its sum, if it belongs to the manifest that
// nodes are given and is no longer what the CA publishes: a newer manifest then waits for a
// signature. Else it is nil.
func (a *API) signedFile(r *http.Request) []byte {
	d, ok := a.cfg.Distribution.(interface{ File(sha256 string) []byte })
	if !ok || r.URL.RawQuery == "" {
		return nil
	}
	return d.File(r.URL.Query().Get("sha256"))
}

// trustedKeys is GET /v1/ca/trusted-user-ca-keys.
func (a *API) trustedKeys(w http.ResponseWriter, r *http.Request) error {
	if signed := a.signedFile(r); signed != nil {
		return a.sheets.signedBundle.of(signed).serve(w, r, "text/plain; charset=utf-8")
	}
	return a.sheets.bundle.of(a.cfg.Certificates.TrustBundle()).serve(w, r, "text/plain; charset=utf-8")
}

// revokedKeys is GET /v1/ca/revoked-keys. A client that has the list, and prefers to
// wait for the next one, is told when it is there.
func (a *API) revokedKeys(w http.ResponseWriter, r *http.Request) error {
	if signed := a.signedFile(r); signed != nil {
		return a.sheets.signedList.of(signed).serve(w, r, "application/octet-stream")
	}
	list := a.sheets.list.of(a.cfg.Certificates.RevocationList())
	if wait := preferredWait(r); wait > 0 && list.held(r) {
		list = a.awaitRevocations(w, r, list, wait)
	}
	return list.serve(w, r, "application/octet-stream")
}

// manifest is GET /v1/ca/manifest.
func (a *API) manifest(w http.ResponseWriter, r *http.Request) error {
	text, _, err := a.cfg.Distribution.Manifest(r.Context())
	if err != nil {
		return err
	}
	return a.sheets.manifest.of(text).serve(w, r, mediaJSON)
}

// manifestSignature is GET /v1/ca/manifest.sig.
func (a *API) manifestSignature(w http.ResponseWriter, r *http.Request) error {
	_, signature, err := a.cfg.Distribution.Manifest(r.Context())
	if err != nil {
		return err
	}
	return a.sheets.signature.of(signature).serve(w, r, "text/plain; charset=utf-8")
}
