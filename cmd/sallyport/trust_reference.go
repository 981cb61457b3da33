package main

import (
	"fmt"
	"strings"
)

const trustHead = `# What decides trust

Made from the table in cmd/sallyport/trust.go; do not edit. ` + "`go test ./cmd/sallyport -run Reference -update`" + ` writes it anew.

These settings decide whom the service believes, what it gives away, or who can be it. What is refused is an error of ` + "`check-config`" + ` (exit
code 1), and ` + "`serve`" + ` does not start; what is warned of is printed by both, with line and key, at each start, and changes no exit code.
Settings of a part that is switched off are not looked at. Every setting that names a file, a URL, a network or a listener stands here: a
test compares.

**Files.** On the whole way to a file, links followed as the kernel does, nobody but root and the service's user may be able to write or replace
anything: no folder that others may write (a sticky one such as ` + "`/tmp`" + ` is good, if what lies in it is root's or the service's), no link of
somebody else, no owner but these two. This holds for the configuration file itself, too. Secrets must be readable by their owner only.

**URLs** have no user and no fragment. Plain HTTP is for this machine alone (` + "`localhost`, `127.0.0.0/8`, `::1`" + `), unless the setting that is named
says otherwise, and then it is warned of at each start.

| setting | decides | refused | warned of |
|---|---|---|---|
`

// markdownTrust is docs/trust.md.
func markdownTrust() string {
	var b strings.Builder
	b.WriteString(trustHead)
	for _, r := range trustRules() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", strings.ReplaceAll(r.key, "[]", ""), r.decides, r.refused, r.warned)
	}
	return b.String()
}
