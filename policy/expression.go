package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

const (
	// maxExpression bounds an expression, in bytes.
	maxExpression = 4096
	// maxCost bounds one evaluation, in CEL's own units: a comparison is about one, and
	// a pass over a list of claims as many as it has members. It is some milliseconds.
	maxCost = 100_000
)

// newEnvironment declares what expressions can name; docs/policy.md lists it.
func newEnvironment() (*cel.Env, error) {
	texts := cel.ListType(cel.StringType)
	options := []cel.EnvOption{
		cel.CrossTypeNumericComparisons(true), // a number of a claim is a double
		cel.Variable("user", cel.StringType),
		cel.Variable("issuer", cel.StringType),
		cel.Variable("subject", cel.StringType),
		cel.Variable("client", cel.StringType),
		cel.Variable("scopes", texts),
		cel.Variable("groups", texts),
		cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("operation", cel.StringType),
		cel.Variable("system", cel.StringType),
		cel.Variable("method", cel.StringType),
		cel.Variable("address", cel.StringType),
		cel.Variable("now", cel.TimestampType),
		cel.Variable("account", cel.StringType),
		cel.Variable("path", cel.StringType),
		cel.Variable("target", cel.StringType),
		cel.Variable("paths", texts),
		cel.Variable("tree", cel.BoolType),
		cel.Variable("job.environment", texts),
		cel.Variable("job.script_bytes", cel.IntType),
	}
	for _, name := range jobTexts {
		options = append(options, cel.Variable(jobPrefix+name, cel.StringType))
	}
	return cel.NewEnv(options...)
}

// Parameters of a job are variables of their own, such as job.account, so that a name that
// does not exist is found when the configuration is read.
const jobPrefix = "job."

var jobTexts = []string{
	"name", "account", "partition", "reservation", "constraints", "working_directory", "standard_input", "standard_output", "standard_error",
	"script_path", "script_sha256",
}

// late says whether a variable is not known before the call has been looked into.
func late(name string) bool {
	switch name {
	case "path", "target", "paths", "tree":
		return true
	}
	return strings.HasPrefix(name, jobPrefix)
}

// A condition is an expression that was compiled.
type condition struct {
	program cel.Program // nil: true
	// partial evaluates as far as that can be done without the late variables; nil if it
	// names none. late are those.
	partial cel.Program
	late    []string
}

// judge completes a step whose lists match.
func (c condition) judge(in *input, step *Step) {
	if c.program == nil {
		step.Matched = !step.Pending
		return
	}
	result, err := c.evaluate(in)
	switch {
	case step.Pending && (err != nil || result != types.False): // a path may not be on the list
	case err != nil:
		step.Err = err
	case types.IsUnknown(result) && in.act.Pending:
		step.Pending = true
	case types.IsUnknown(result):
		step.Err = errors.New("the request leaves to the script or the node what it needs: " + strings.Join(c.unknown(in), ", "))
	case result == types.True:
		step.Matched = true
	case result == types.False:
		step.Differs, step.Pending = "when", false
	default: // a claim of another type
		step.Err = fmt.Errorf("the expression is neither true nor false but a %s", result.Type().TypeName())
	}
}

// unknown are the variables of the expression that have no value.
func (c condition) unknown(in *input) (names []string) {
	for _, name := range c.late {
		if in.act.Pending || slices.Contains(in.act.Job.Open, strings.TrimPrefix(name, jobPrefix)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (c condition) evaluate(in *input) (ref.Val, error) {
	var unknown []*cel.AttributePatternType
	for _, name := range c.unknown(in) {
		unknown = append(unknown, cel.AttributePattern(name))
	}
	if len(unknown) == 0 {
		result, _, err := c.program.Eval(in)
		return result, err
	}
	vars, err := cel.PartialVars(in, unknown...)
	if err != nil {
		return nil, err
	}
	result, _, err := c.partial.Eval(vars)
	return result, err
}

// compile returns a program, or what is wrong with the text.
func compile(env *cel.Env, text string) (condition, string) {
	var c condition
	switch {
	case text == "":
		return c, ""
	case len(text) > maxExpression:
		return c, fmt.Sprintf("has %d bytes, at most %d are allowed", len(text), maxExpression)
	}
	ast, issues := env.Compile(text)
	if issues != nil && issues.Err() != nil {
		var all []string
		for _, e := range issues.Errors() {
			at := fmt.Sprintf("column %d", e.Location.Column()+1)
			if strings.Contains(text, "\n") {
				at = fmt.Sprintf("line %d, %s", e.Location.Line(), at)
			}
			all = append(all, fmt.Sprintf("%s: %s", at, e.Message))
		}
		return c, fmt.Sprintf("%q: %s", text, strings.Join(all, "; "))
	}
	if t := ast.OutputType(); !t.IsExactType(types.BoolType) && !t.IsExactType(types.DynType) {
		return c, fmt.Sprintf("%q: column 1: the expression must be true or false, and is a %s", text, t)
	}
	for _, used := range ast.NativeRep().ReferenceMap() {
		if late(used.Name) && !slices.Contains(c.late, used.Name) {
			c.late = append(c.late, used.Name)
		}
	}
	var err error
	c.program, err = env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err == nil && len(c.late) > 0 {
		c.partial, err = env.Program(ast, cel.EvalOptions(cel.OptOptimize, cel.OptPartialEval), cel.CostLimit(maxCost))
	}
	if err != nil { // a constant that cannot be, such as a regular expression
		return c, fmt.Sprintf("%q: %v", text, err)
	}
	return c, ""
}

// An input is what an expression is evaluated over: CEL's Activation. Values are made
// when they are asked for.
type input struct {
	caller     Caller
	act        Act
	path       Path // the one of act.Paths that is asked about
	groupsPath []string
	of         []string // groups, once known
	grouped    bool
}

// ResolveName implements the Activation.
func (in *input) ResolveName(name string) (any, bool) {
	switch name {
	case "user":
		return in.caller.User, true
	case "issuer":
		return in.caller.Issuer, true
	case "subject":
		return in.caller.Subject, true
	case "client":
		return in.caller.Client, true
	case "scopes":
		return in.caller.Scopes, true
	case "groups":
		return in.groups(), true
	case "claims":
		return in.caller.Claims, true
	case "operation":
		return in.act.Operation, true
	case "system":
		return in.act.System, true
	case "method":
		return in.act.Method, true
	case "address":
		return in.act.Address, true
	case "now":
		return time.Now(), true
	case "account":
		return in.caller.User, true
	case "path":
		return in.path.Real, true
	case "target":
		const second = 1
		if len(in.act.Paths) > second {
			return in.act.Paths[second].Real, true
		}
		return "", true
	case "paths":
		paths := make([]string, 0, len(in.act.Paths))
		for _, p := range in.act.Paths {
			paths = append(paths, p.Real)
		}
		return paths, true
	case "tree":
		return in.act.Tree, true
	}
	if parameter, ok := strings.CutPrefix(name, jobPrefix); ok {
		return in.act.Job.value(parameter)
	}
	return nil, false
}

// Parent implements the Activation.
func (in *input) Parent() cel.Activation { return nil }

// groups are the strings of the groups claim.
func (in *input) groups() []string {
	if in.grouped {
		return in.of
	}
	in.grouped, in.of = true, []string{}
	var at any = in.caller.Claims
	for _, name := range in.groupsPath {
		object, _ := at.(map[string]any)
		at = object[name]
	}
	switch value := at.(type) {
	case string:
		in.of = append(in.of, value)
	case []any:
		for _, member := range value {
			if s, ok := member.(string); ok {
				in.of = append(in.of, s)
			}
		}
	}
	return in.of
}
