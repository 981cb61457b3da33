package credential

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca/krl"
)

func listOf(t *testing.T, version uint64, keys ...ssh.PublicKey) []byte {
	t.Helper()
	data, err := (&krl.List{Version: version, Keys: keys}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func somePublicKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// followed starts a follower of a server, and returns the versions that it applies.
func followed(t *testing.T, serve http.HandlerFunc) (*Follower, <-chan uint64) {
	t.Helper()
	server := httptest.NewServer(serve)
	t.Cleanup(server.Close)
	applied := make(chan uint64, 100)
	f, err := NewFollower(FollowConfig{URL: server.URL + "/list", Apply: func(l *krl.List) { applied <- l.Version }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		f.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return f, applied
}

func TestAFollowerAppliesEachListAndTheSameOneAgainAfterAWait(t *testing.T) {
	t.Parallel()
	key := somePublicKey(t)
	asked := 0
	_, applied := followed(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Preference-Applied", "wait=30")
		switch {
		case asked == 1 && r.Header.Get("Prefer") == "":
			w.Header().Set("ETag", `"one"`)
			_, _ = w.Write(listOf(t, 1))
		case asked == 2 && r.Header.Get("If-None-Match") == `"one"` && r.Header.Get("Prefer") == "wait=30":
			w.WriteHeader(http.StatusNotModified)
		case asked == 3 && r.Header.Get("If-None-Match") == `"one"`:
			w.Header().Set("ETag", `"two"`)
			_, _ = w.Write(listOf(t, 2, key))
		default:
			<-r.Context().Done()
		}
	})
	for i, want := range []uint64{1, 1, 2} {
		if got := <-applied; got != want {
			t.Errorf("application %d is of list %d, want %d", i+1, got, want)
		}
	}
}

// A mirror that brings back an old list would let in again whom the CA has revoked since.
func TestTheVersionOfAFollowedListNeverFalls(t *testing.T) {
	t.Parallel()
	versions := []uint64{7, 6, 1, 8, 7, 9}
	asked := 0
	f, applied := followed(t, func(w http.ResponseWriter, r *http.Request) {
		if asked == len(versions) { // the next one is held back
			<-r.Context().Done()
			return
		}
		w.Header().Set("Preference-Applied", "wait=30")
		w.Header().Set("ETag", strconv.Quote(strconv.Itoa(asked)))
		_, _ = w.Write(listOf(t, versions[asked]))
		asked++
	})
	for _, want := range []uint64{7, 8, 9} {
		if got := <-applied; got != want {
			t.Errorf("list %d was applied, want %d", got, want)
		}
		if got := f.State().Version; got != want {
			t.Errorf("list %d is in force, want %d", got, want)
		}
	}
}

// A CA says that it holds requests back, and answers each at once.
func TestAFollowerAsksALyingCANoMoreOftenThanItMust(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]func(http.ResponseWriter, int){
		"nothing changed": func(w http.ResponseWriter, _ int) { w.WriteHeader(http.StatusNotModified) },
		"all changed": func(w http.ResponseWriter, n int) {
			w.Header().Set("ETag", strconv.Quote(strconv.Itoa(n)))
			_, _ = w.Write(listOf(t, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			began := time.Now()
			_, applied := followed(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Preference-Applied", "wait=30")
				if asked++; r.Header.Get("If-None-Match") != "" {
					lie(w, asked)
					return
				}
				w.Header().Set("ETag", `"one"`)
				_, _ = w.Write(listOf(t, 1))
			})
			const looks = 5
			for range looks {
				<-applied
			}
			// The first one was asked for without a wait, so that it is another's pause.
			if took := time.Since(began); took < (looks-2)*followLeast {
				t.Errorf("%d requests took %s", looks, took)
			}
		})
	}
}

func TestWhatIsNoListChangesNothing(t *testing.T) {
	t.Parallel()
	good := listOf(t, 7)
	for name, bad := range map[string]http.HandlerFunc{
		"garbage":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"empty":     func(http.ResponseWriter, *http.Request) {},
		"truncated": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good[:len(good)-1]) },
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(append(good, make([]byte, krl.MaxBytes)...))
		},
		"refused":        func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"elsewhere":      func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) },
		"304 for no tag": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) },
		"broken off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(good)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			f, applied := followed(t, func(w http.ResponseWriter, r *http.Request) {
				if asked++; asked == 1 {
					bad(w, r)
					return
				}
				w.Header().Set("ETag", `"good"`)
				w.Header().Set("Preference-Applied", "wait=30")
				if r.Header.Get("If-None-Match") != "" {
					<-r.Context().Done()
				}
				_, _ = w.Write(good)
			})
			if got := <-applied; got != 7 {
				t.Errorf("list %d was applied", got)
			}
			if s := f.State(); s.Version != 7 || s.Checked.IsZero() {
				t.Errorf("state is %+v", s)
			}
		})
	}
}

func TestAFollowerSaysOnceThatTheListCannotBeHad(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	f, err := NewFollower(FollowConfig{URL: "http://127.0.0.1:1/list", Apply: func(*krl.List) { t.Error("applied") }, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, err := f.look(t.Context())
		f.note(t.Context(), err)
	}
	if got := strings.Count(log.String(), "cannot be had"); got != 1 {
		t.Errorf("said %d times: %s", got, log.String())
	}
	if s := f.State(); s.Failure == "" || s.Version != 0 {
		t.Errorf("state is %+v", s)
	}
}

func TestAListIsNotFetchedInTheClear(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"http://ca.example.org/list", "ftp://ca.example.org/list", "", "https://user@ca.example.org/list"} {
		if _, err := NewFollower(FollowConfig{URL: url, Apply: func(*krl.List) {}}); err == nil {
			t.Errorf("%q was accepted", url)
		}
	}
}
