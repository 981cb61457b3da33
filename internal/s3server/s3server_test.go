package s3server_test

import (
	"net/http"
	"testing"

	"sallyport/internal/s3server"
)

func TestServerStarts(t *testing.T) {
	s, err := s3server.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/"+s3server.Bucket, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden { // without a signature
		t.Errorf("status %d", resp.StatusCode)
	}
}
