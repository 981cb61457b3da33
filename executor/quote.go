package executor

import (
	"fmt"
	"strings"
)

// Quote returns s as one word for a POSIX shell (POSIX.1-2024, Shell Command
// Language §2.2.2), whatever bytes it holds. Only NUL is refused, because no
// argument can hold it. The shells csh and fish read some bytes in quotes
// differently.
func Quote(s string) (string, error) {
	if strings.ContainsRune(s, 0) {
		return "", fmt.Errorf("%q holds a NUL byte", s)
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'", nil
}
