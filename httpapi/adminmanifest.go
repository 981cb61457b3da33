package httpapi

import (
	"context"
	"net/http"

	"sallyport/ca"
)

// A ManifestImporter hands out what a person signs with a distribution key that is offline, and takes what they have signed.
type ManifestImporter interface {
	Draft(ctx context.Context) ([]byte, error)
	Import(ctx context.Context, actor ca.Actor, text, signature []byte) (version int64, err error)
}

// manifestRoutes are served over the admin socket only.
func (a *API) manifestRoutes() []route {
	if _, ok := a.cfg.Distribution.(ManifestImporter); !ok {
		return nil
	}
	return []route{
		{http.MethodGet, "/v1/admin/manifest", a.manifestDraft},
		{http.MethodPost, "/v1/admin/manifest", a.manifestImport},
	}
}

// manifestDraft is GET /v1/admin/manifest.
func (a *API) manifestDraft(w http.ResponseWriter, r *http.Request) error {
	text, err := a.cfg.Distribution.(ManifestImporter).Draft(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]string{"manifest": string(text)})
	return nil
}

// manifestImport is POST /v1/admin/manifest: {"manifest", "signature", "reason"}.
func (a *API) manifestImport(w http.ResponseWriter, r *http.Request) error {
	body, err := a.readObject(w, r, 2*maxActBody)
	if err != nil {
		return err
	}
	text, signature, reason := body.text("manifest"), body.text("signature"), body.text("reason")
	if err := body.finish(); err != nil {
		return err
	}
	version, err := a.cfg.Distribution.(ManifestImporter).Import(r.Context(), actorOf(r.Context(), reason), []byte(text), []byte(signature))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]int64{"version": version})
	return nil
}
