package policy

import (
	"fmt"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
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
	return cel.NewEnv(
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
	)
}

// compile returns a program, or what is wrong with the text.
func compile(env *cel.Env, text string) (cel.Program, string) {
	switch {
	case text == "":
		return nil, ""
	case len(text) > maxExpression:
		return nil, fmt.Sprintf("has %d bytes, at most %d are allowed", len(text), maxExpression)
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
		return nil, fmt.Sprintf("%q: %s", text, strings.Join(all, "; "))
	}
	if t := ast.OutputType(); !t.IsExactType(types.BoolType) && !t.IsExactType(types.DynType) {
		return nil, fmt.Sprintf("%q: column 1: the expression must be true or false, and is a %s", text, t)
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil { // a constant that cannot be, such as a regular expression
		return nil, fmt.Sprintf("%q: %v", text, err)
	}
	return program, ""
}

// An input is what an expression is evaluated over: CEL's Activation. Values are made
// when they are asked for.
type input struct {
	caller     Caller
	act        Act
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
