package main

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	headerLine = regexp.MustCompile(`^\s*(\[\[?)\s*([A-Za-z0-9_.\-"' ]+?)\s*\]\]?\s*(#.*)?$`)
	keyLine    = regexp.MustCompile(`^\s*([A-Za-z0-9_.\-"']+)\s*=`)
)

// locateKeys returns the line of each key of a TOML text under its full name, as
// in "systems[1].nodes". The text has been parsed before, so it is well-formed;
// the parser itself does not tell where a key stands. A key inside an inline
// table has no line of its own.
func locateKeys(text string) map[string]int {
	lines := map[string]int{}
	counts := map[string]int{}
	prefix, quote := "", ""
	for i, line := range strings.Split(text, "\n") {
		if quote != "" { // inside a multi-line string
			if strings.Contains(line, quote) {
				quote = ""
			}
			continue
		}
		if h := headerLine.FindStringSubmatch(line); h != nil {
			prefix = tableName(h[1] == "[[", unquote(h[2]), counts)
			lines[prefix] = i + 1
			if _, seen := lines[unquote(h[2])]; !seen {
				lines[unquote(h[2])] = i + 1
			}
			continue
		}
		if k := keyLine.FindStringSubmatch(line); k != nil {
			lines[join(prefix, unquote(k[1]))] = i + 1
		}
		quote = opensMultiline(line)
	}
	return lines
}

// tableName gives the full name of a table whose header was read, with the
// indexes of the lists of tables that it stands in.
func tableName(list bool, name string, counts map[string]int) string {
	parts := strings.Split(name, ".")
	full := ""
	for i, part := range parts {
		full = join(full, part)
		last := i == len(parts)-1
		if n, isList := counts[full]; isList && !last {
			full = fmt.Sprintf("%s[%d]", full, n-1)
		}
	}
	if list {
		counts[full]++
		full = fmt.Sprintf("%s[%d]", full, counts[full]-1)
	}
	return full
}

func opensMultiline(line string) string {
	for _, q := range []string{`"""`, "'''"} {
		if strings.Count(line, q)%2 == 1 {
			return q
		}
	}
	return ""
}

func unquote(key string) string {
	return strings.NewReplacer(`"`, "", "'", "", " ", "").Replace(key)
}
