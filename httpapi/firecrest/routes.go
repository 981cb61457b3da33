package firecrest

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"sallyport/policy"
)

// An operation is one call: a method, the template of a path, and what answers.
// To add one, write a function and its line in a table such as statusOperations.
type operation struct {
	method string
	// path is a template; a segment in braces is a variable: {system}, which is
	// looked up before serve is called, or {job}.
	path string
	// name is how a policy knows it; public operations need no token, and have none.
	name   string
	public bool
	// needs says what it takes on the node.
	needs need
	// serve answers, or returns an error before the first byte of its answer.
	serve func(c *call) error
}

// A need is what an operation takes on a login node.
type need int

const (
	// needsFiles is SFTP or nothing, though some of its parameters may need a command.
	needsFiles need = iota
	// oftenCommand is a command, unless it is about a stream.
	oftenCommand
	// needsCommand is a command that this package makes.
	needsCommand
	// needsPower is a command, or a job, of the caller's own making.
	needsPower
)

// detailed says whether a policy is told of paths or a job before anything is done.
func (op operation) detailed() bool {
	return strings.HasPrefix(op.name, "filesystem.") || strings.HasPrefix(op.name, "transfer.") || op.name == "compute.submit"
}

func operations() []operation {
	return slices.Concat(statusOperations(), filesystemOperations(), transferOperations(), streamOperations(), computeOperations())
}

// Operations are the names by which a policy knows the calls that need a token.
func Operations() (names []string) {
	for _, op := range operations() {
		if !op.public {
			names = append(names, op.name)
		}
	}
	return names
}

// Powers are those of them by which callers run code of their own.
func Powers() (powers []policy.Power) {
	for _, op := range operations() {
		if op.needs == needsPower {
			powers = append(powers, policy.Power{Operation: op.name, Method: op.method, Detailed: op.detailed()})
		}
	}
	return powers
}

// Commands are those that are not for who may run none, as what they do takes a command on
// a login node.
func Commands() (names []string) {
	for _, op := range operations() {
		if op.needs != needsFiles {
			names = append(names, op.name)
		}
	}
	return names
}

// A segment is a place in the tree of paths.
type segment struct {
	template   string // of the path to here
	fixed      map[string]*segment
	variable   *segment // any other segment
	name       string   // of the variable, without braces
	operations map[string]operation
}

func newSegment() *segment {
	return &segment{fixed: make(map[string]*segment), operations: make(map[string]operation)}
}

func (s *segment) add(op operation) {
	at := s
	for _, part := range strings.Split(op.path, "/")[1:] {
		next := at.fixed[part]
		if name, ok := strings.CutPrefix(part, "{"); ok {
			at.name = strings.TrimSuffix(name, "}")
			next = at.variable
		}
		if next == nil {
			next = newSegment()
			next.template = at.template + "/" + part
			if part[0] == '{' {
				at.variable = next
			} else {
				at.fixed[part] = next
			}
		}
		at = next
	}
	at.operations[op.method] = op
}

// find returns the place of a path with its variables, or nil.
func (s *segment) find(parts []string) (*segment, map[string]string) {
	at, vars := s, map[string]string{}
	for _, part := range parts {
		next := at.fixed[part]
		if next == nil {
			if next = at.variable; next == nil || part == "" {
				return nil, nil
			}
			vars[at.name] = part
		}
		at = next
	}
	return at, vars
}

// allow is the Allow header.
func (s *segment) allow() string {
	methods := slices.Collect(maps.Keys(s.operations))
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

// segments are the parts of an escaped path, each unescaped and in lower case: a
// slash that is escaped is part of a name. One slash at the end is not looked at.
func segments(escaped string) []string {
	parts := strings.Split(strings.TrimSuffix(escaped, "/"), "/")[1:]
	for i, part := range parts {
		text, err := url.PathUnescape(part)
		if err != nil { // net/url has parsed it before
			text = part
		}
		parts[i] = strings.ToLower(text)
	}
	return parts
}
