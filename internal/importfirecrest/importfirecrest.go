// Package importfirecrest turns a configuration of FirecREST v2 into one of Sallyport.
//
// The guarantee: every key of the YAML file either has a counterpart in what comes out,
// or is named with its line and what to do about it; no secret is copied, neither into
// the file nor into a message; and where FirecREST asked somebody else for permission,
// nothing is allowed until that is set up again.
//
// The threat is a file that somebody else wrote: it is bounded, and its names are checked
// by the configuration's own rules when it is loaded. The caveat: a configuration says
// nothing of what surrounds it, above all not what "aud" the provider's tokens have and
// which host keys the nodes have, and FirecREST checked neither.
package importfirecrest

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// MaxBytes bounds a file.
const MaxBytes = 1 << 20

// A Result is a configuration of ours.
type Result struct {
	// TOML is the file.
	TOML string
	// Notes are in the order of files and lines. They are in the TOML file as well.
	Notes []Note
}

// A Source is a file of a folder of clusters.
type Source struct {
	Name string
	Text []byte
}

// A Reader returns the YAML files of a folder, in order, for "clusters: path:FOLDER".
type Reader func(folder string) ([]Source, error)

// A conversion is the work on one file.
type conversion struct {
	notes   []Note
	out     writer
	read    Reader
	systems []*system
	s3      writer
	// What FirecREST has for each cluster and we for all systems.
	connections, idle, keepalive, fileSize shared
}

// Convert converts the text of a file. The error says with its line why it is no YAML, or
// why it cannot be a configuration of FirecREST v2.
func Convert(text []byte, read Reader) (Result, error) {
	c := &conversion{read: read}
	root, err := parse(text)
	if err != nil {
		return Result{}, err
	}
	top := fromChart(newSection(&c.notes, "", "", root))
	if !top.has("clusters") || !top.has("auth") {
		return Result{}, errors.New("it has no auth or no clusters: that is no configuration of FirecREST v2")
	}
	if err := c.clusters(top); err != nil {
		return Result{}, err
	}
	if top.has("storage") { // where it stood before FirecREST 2.3
		c.storage(top.section("storage"))
	}
	c.issuers(top.section("auth"))
	c.credentials(top)
	c.firecrest()
	c.writeSystems()
	c.rootRest(top)
	slices.SortStableFunc(c.notes, func(a, b Note) int { return cmp.Or(cmp.Compare(a.File, b.File), a.Line-b.Line) })
	return Result{TOML: c.head() + c.out.text.String(), Notes: c.notes}, nil
}

// fromChart finds the configuration in the values of FirecREST's Helm chart.
func fromChart(top *section) *section {
	if top.has("auth") || !top.has("firecrest") {
		return top
	}
	in := top.section("firecrest")
	for _, key := range slices.Sorted(maps.Keys(top.values)) {
		top.drop(key, "it is of the chart and not of FirecREST; deploy/ has what Sallyport needs")
	}
	return in
}

// head is the comment at the top.
func (c *conversion) head() string {
	var w writer
	w.comment("Made by \"sallyport import-firecrest\". Every option: docs/configuration.md.\n" +
		"Before it serves: sallyport init DIR makes the CA key and the folder (data_dir) that\n" +
		"this file belongs into; sallyport check-config says what is missing.")
	if len(c.notes) > 0 {
		w.comment("\nTo be looked at (lines are those of the YAML file):")
	}
	for _, n := range c.notes {
		w.comment("%s: %s: %s", strings.TrimPrefix(n.File+":"+strconv.Itoa(n.Line), ":"), n.Key, n.Text)
	}
	w.line("")
	return w.text.String()
}

// oneLine keeps text of a file, which may hold anything, in its line, and from commanding
// a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// rootRest are the keys of the top level that remain.
func (c *conversion) rootRest(top *section) {
	if path := top.text("apis_root_path"); strings.Trim(path, "/") != "" {
		top.note("apis_root_path", "has no counterpart: have the proxy in front take %q off the path", path)
	}
	top.drop("app_debug", "log.level = \"debug\" says more, and nothing of it goes to clients")
	top.drop("app_version", "F7T-AppVersion is the compatibility level")
	top.drop("doc_servers", "the documentation at /docs names no servers")
	logger := top.section("logger")
	logger.drop("enable_tracing_log", "every request has a line in the log, and every act one in the audit log")
	logger.drop("loggable_request_headers", "no header of a request is logged; X-Request-ID and traceparent are")
	logger.rest()
	top.rest()
}

// firecrest is the part for all systems.
func (c *conversion) firecrest() {
	c.out.table("[firecrest]")
	c.out.set("enabled", true)
	c.out.set("max_ops_file_size", c.fileSize.value)
	if c.s3.text.Len() > 0 {
		c.out.line("")
		c.out.line(strings.TrimSuffix(c.s3.text.String(), "\n"))
	}
}
