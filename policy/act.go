package policy

import (
	"errors"
	"path"
	"strings"
)

// ErrPending says that the decision depends on paths or job parameters which are not known
// yet: see [Act.Pending]. Nothing is allowed by it.
var ErrPending = errors.New("policy depends on what is not known yet")

// An Act is what a caller asks for.
type Act struct {
	// Operation is one of [Config.Operations].
	Operation string
	// System is empty if the operation is for none.
	System string
	// Method is that of HTTP, Address where the request comes from, as an IP address.
	Method, Address string

	// Pending says that Paths, Tree and Job are not known yet, and will be asked about before
	// anything is done. The answer is ErrPending unless it is the same whatever they are.
	Pending bool
	// Paths are the paths that the call names, in its order, as the node resolves them.
	// Each must be allowed.
	Paths []Path
	// Tree says that the call reaches what lies below its paths too.
	Tree bool
	// Job is the job that the call submits; the zero Job if there is none.
	Job Job
}

// A Path is one that the node has resolved.
type Path struct {
	// Real has no links.
	Real string
	// Names are other names of it, as the folders of the configuration begin, if those are links.
	Names []string
}

// A Job is what a request to submit one says.
type Job struct {
	Name, Account, Partition, Reservation, Constraints             string
	WorkingDirectory, StandardInput, StandardOutput, StandardError string
	// ScriptPath is a file on the node; else ScriptSHA256 (in hex) and ScriptBytes are the
	// script's that came in the request.
	ScriptPath, ScriptSHA256 string
	ScriptBytes              int64
	// Environment are the names of variables that the request sets.
	Environment []string
	// Open are the members, as expressions name them ("account"), that the request leaves to
	// the script or the node. A rule that needs one of them cannot be evaluated.
	Open []string
}

// jobValue is a variable "job.NAME" of an expression.
func (j *Job) value(name string) (any, bool) {
	switch name {
	case "name":
		return j.Name, true
	case "account":
		return j.Account, true
	case "partition":
		return j.Partition, true
	case "reservation":
		return j.Reservation, true
	case "constraints":
		return j.Constraints, true
	case "working_directory":
		return j.WorkingDirectory, true
	case "standard_input":
		return j.StandardInput, true
	case "standard_output":
		return j.StandardOutput, true
	case "standard_error":
		return j.StandardError, true
	case "script_path":
		return j.ScriptPath, true
	case "script_sha256":
		return j.ScriptSHA256, true
	case "script_bytes":
		return j.ScriptBytes, true
	case "environment":
		if j.Environment == nil {
			return []string{}, true
		}
		return j.Environment, true
	}
	return nil, false
}

// reaches says whether a rule about prefix is about the path: it lies there, or, if the rule
// denies and the call reaches below its path, the prefix lies below it.
func (p Path) reaches(prefix string, tree bool) bool {
	for _, name := range append([]string{p.Real}, p.Names...) {
		if within(prefix, name) || tree && within(name, prefix) {
			return true
		}
	}
	return false
}

// within says whether a clean path is prefix, or below it by whole components.
func within(prefix, name string) bool {
	return name == prefix || strings.HasPrefix(name, strings.TrimSuffix(prefix, "/")+"/")
}

// cleanPath says whether a rule may have a path.
func cleanPath(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.Contains(p, "*")
}
