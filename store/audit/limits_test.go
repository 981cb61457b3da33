package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func readOf(subject, path string) Event {
	return Event{Action: FileRead, Outcome: Unknown, Issuer: "campus", Subject: subject, Detail: map[string]string{"path": path}}
}

// TestRecordsOfOnePersonAreAPartOfTheLog: who has used theirs up waits, and an administrator, the end
// of what was done, and everybody else do not.
func TestRecordsOfOnePersonAreAPartOfTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "audit")
		const minute = 64 << 10
		l := openLog(t, Config{Dir: dir, Limits: Limits{BytesPerMinute: minute}})
		var refused *ShareError
		for i := range 10_000 {
			err := l.Record(t.Context(), readOf("mallory", fmt.Sprint("/", i, strings.Repeat("x", 3800))))
			if errors.As(err, &refused) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if refused == nil || errors.Is(refused, ErrUnavailable) || refused.RetryAfter > 2*time.Second {
			t.Fatalf("the refusal is %v", refused)
		}
		if size, err := sizeOfFiles(dir); err != nil || size > minute {
			t.Errorf("the log has %d bytes, %v", size, err)
		}
		mustRecord(t, l, t.Context(), readOf("alice", "/x"))
		mustRecord(t, l, t.Context(), Event{Action: AdminAct, Issuer: "campus", Subject: "mallory"})
		mustRecord(t, l, t.Context(), Event{Action: FileEnd, Issuer: "campus", Subject: "mallory"})
		mustRecord(t, l, t.Context(), Event{Action: CertificateIntent})
		time.Sleep(refused.RetryAfter + time.Second)
		mustRecord(t, l, t.Context(), readOf("mallory", "/x"))
	})
}

// Addresses pay for refusals without a person, and a network of IPv6 is one.
func TestRefusalsOfAnAddressAreAPartOfTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := openLog(t, Config{Dir: filepath.Join(t.TempDir(), "audit"), Limits: Limits{BytesPerMinute: 4 << 10}})
		refuse := func(address string, i int) error {
			return l.Record(WithRequest(t.Context(), Request{SourceIP: address}), Event{Action: TokenRefused, Reason: fmt.Sprint(i)})
		}
		var err error
		for i := 0; err == nil && i < 100; i++ {
			err = refuse(fmt.Sprintf("2001:db8:0:1::%x", i), i)
		}
		if !errors.Is(err, ErrShare) {
			t.Errorf("100 refusals of one network: %v", err)
		}
		for _, other := range []string{"2001:db8:0:2::1", "192.0.2.1", "192.0.2.2"} {
			if err := refuse(other, 0); err != nil {
				t.Errorf("%s: %v", other, err)
			}
		}
	})
}

func TestRoomIsKeptForAdministrators(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, limits := range map[string]Limits{"reserve": {Reserve: 1 << 60}, "total": {MaxTotal: 1}} {
			l := openLog(t, Config{Dir: filepath.Join(t.TempDir(), "audit"), Limits: limits})
			mustRecord(t, l, t.Context(), Event{Action: AdminAct})
			time.Sleep(time.Minute)
			if err := l.Record(t.Context(), readOf("alice", "/x")); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errNoRoom) {
				t.Errorf("%s: %v", name, err)
			}
			mustRecord(t, l, t.Context(), Event{Action: AdminAct})
			mustRecord(t, l, t.Context(), Event{Action: ExecEnd, Issuer: "campus", Subject: "alice"})
			if l.Overdrawn(t.Context()) == nil {
				t.Errorf("%s: nobody says so", name)
			}
		}
	})
}

// TestLongValuesKeepTheDigestOfTheWhole: what is cut can still be told apart and proved.
func TestLongValuesKeepTheDigestOfTheWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, Config{Dir: privateDir(t, dir)})
	path := "/home/alice/" + strings.Repeat("p", 3800)
	command := strings.Repeat("c", MaxLongBytes+1)
	mustRecord(t, l, t.Context(), Event{
		Action: ExecStart, Issuer: "campus", Subject: strings.Repeat("s", MaxFieldBytes+1),
		Detail: map[string]string{"path": path, "command": command, "command_sha256": "theirs", "short": "x"},
	})
	line := lines(t, dir, 1)[0]
	got := decodeLine(t, line)
	for name, value := range map[string]string{"sallyport.path": path, "user.id": strings.Repeat("s", MaxFieldBytes+1)} {
		sum := sha256.Sum256([]byte(value))
		kept, _ := got[name].(string)
		if len(kept) != MaxFieldBytes || !strings.HasPrefix(value, strings.TrimSuffix(kept, "…")) || got[name+"_sha256"] != hex.EncodeToString(sum[:]) {
			t.Errorf("%s was kept as %d bytes with the digest %v", name, len(kept), got[name+"_sha256"])
		}
	}
	if got["sallyport.command_sha256"] != "theirs" || len(got["sallyport.command"].(string)) != MaxLongBytes || got["sallyport.short_sha256"] != nil {
		t.Errorf("the line is %s", line)
	}
}

// TestTheSameRefusalIsCounted: it is recorded once, then how often it came.
func TestTheSameRefusalIsCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "audit")
		l := openLog(t, Config{Dir: dir})
		bad := func(subject, reason string, times int) {
			for i := range times {
				ctx := WithRequest(t.Context(), Request{ID: fmt.Sprint("r", i), SourceIP: "192.0.2.7"})
				mustRecord(t, l, ctx, Event{Action: CertificateRefused, Outcome: Failure, Issuer: "campus", Subject: subject, Reason: reason})
			}
		}
		bad("mallory", "weak", 40_000)
		bad("mallory", "short", 1)
		bad("alice", "weak", 3)
		if n := len(lines(t, dir, 1)); n != 3 {
			t.Errorf("%d records for 40,004 refusals of three kinds", n)
		}
		time.Sleep(repeatTime + time.Second)
		all := lines(t, dir, 1)
		if len(all) != 5 || !bytes.Contains(bytes.Join(all, nil), []byte(`"sallyport.repeated":"39999"`)) {
			t.Errorf("%d records after a minute, and no count: %s", len(all), all[len(all)-1])
		}
		bad("alice", "weak", 2)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if all := lines(t, dir, 1); len(all) != 7 || !bytes.Contains(all[6], []byte(`"sallyport.repeated":"1"`)) {
			t.Errorf("the count is lost with the end of the service: %s", all[len(all)-1])
		}
		if len(l.repeats.seen)+len(l.repeats.each) > 0 {
			t.Error("something is still counted")
		}
	})
}

func TestRepeatsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := openLog(t, Config{Dir: filepath.Join(t.TempDir(), "audit")})
		for i := range 200 {
			mustRecord(t, l, t.Context(), Event{Action: CallDenied, Issuer: "campus", Subject: "mallory", Reason: fmt.Sprint(i)})
		}
		if n := len(l.repeats.seen); n != maxRepeatsOfOne {
			t.Errorf("%d refusals of one person are watched", n)
		}
	})
}
