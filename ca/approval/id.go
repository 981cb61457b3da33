package approval

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// idDigits is the length of a name that people type. An approval goes by the whole
// digest: names of 64 bits can be made to meet.
const idDigits = 16

// digest follows from what the act would do and why, which the second person has read;
// not from who asks.
func (r Request) digest() string {
	sum := sha256.Sum256([]byte(strings.Join(r.Acts, ",") + "\x00" + r.Reason + "\x00" + r.Key))
	return hex.EncodeToString(sum[:])
}

func validID(id string) bool {
	return len(id) == idDigits && strings.Trim(id, "0123456789abcdef") == ""
}
