package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

const (
	noncePeriod = time.Minute
	// noncePeriods is for how many periods beside its own a nonce is good.
	noncePeriods = 4
)

// nonces makes the values that proofs must hold when they are required (RFC 9449 §8
// and §9): the minute and a MAC over it, so that none has to be remembered. The key
// is made at each start: after a restart, and at another replica, a client is told
// the nonce of that process and sends its request again.
type nonces struct{ key [32]byte }

func newNonces() *nonces {
	n := &nonces{}
	_, _ = rand.Read(n.key[:]) // never fails: crypto/rand ends the process instead
	return n
}

func (n *nonces) at(period int64) []byte {
	nonce := binary.BigEndian.AppendUint64(nil, uint64(period)) //nolint:gosec // of a time after 1970
	mac := hmac.New(sha256.New, n.key[:])
	_, _ = mac.Write(nonce) // never fails
	return append(nonce, mac.Sum(nil)[:16]...)
}

func periodOf(now time.Time) int64 { return now.Unix() / int64(noncePeriod/time.Second) }

func (n *nonces) current(now time.Time) string {
	return base64.RawURLEncoding.EncodeToString(n.at(periodOf(now)))
}

// good says whether a nonce is of this process and not old.
func (n *nonces) good(nonce string, now time.Time) bool {
	given, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(given) != 8+16 {
		return false
	}
	period := int64(binary.BigEndian.Uint64(given)) //nolint:gosec // one that does not fit is of no period
	if p := periodOf(now); period > p || period < p-noncePeriods {
		return false
	}
	return hmac.Equal(given, n.at(period))
}
