package firecrest

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"sallyport/executor"
	"sallyport/httpapi"
	"sallyport/identity"
)

// A failure is an answer that is not the one that was asked for. Clients look for
// phrases in its message; docs/firecrest.md lists those.
type failure struct {
	status  int
	message string
	// kind is FirecREST's errorType; empty means "error".
	kind string
	// causedBy has what a program on the node said.
	causedBy []string
	// fields says which inputs are not acceptable.
	fields []fieldError
	// retry is the Retry-After header in seconds; 0 means none.
	retry int
	// code replaces the one that the table of package httpapi has.
	code string
}

func (f *failure) Error() string { return f.message }

var (
	errNotFound       = &failure{status: http.StatusNotFound, message: "Not Found", code: "route_unknown"}
	errMethod         = &failure{status: http.StatusMethodNotAllowed, message: "Method Not Allowed", code: "method_not_allowed"}
	errNoSystem       = &failure{status: http.StatusNotFound, message: "System not found", code: "system_unknown"}
	errBadJSON        = &failure{status: http.StatusBadRequest, message: "The body is not a JSON object.", code: "body_malformed"}
	errSurrogate      = &failure{status: http.StatusBadRequest, message: "The body has half of a surrogate pair.", code: "body_malformed"}
	errTimedOut       = &failure{status: http.StatusRequestTimeout, message: "Command execution timeout limit exceeded.", code: "timeout"}
	errOutputTooLarge = &failure{status: http.StatusRequestEntityTooLarge, message: "Command output exceeded buffer limit.", code: "output_too_large"}
)

// refusals says how FirecREST's clients are told what package httpapi refuses, by
// its codes. A row is here because a client looks for its phrase, or because the
// status differs; of what has no row, status and text are httpapi's. Whatever
// means "later" is a 429 with Retry-After: that one all clients wait for.
var refusals = map[string]struct {
	status  int
	message string
}{
	"token_missing":      {http.StatusUnauthorized, "Not authenticated"},
	"token_invalid":      {http.StatusUnauthorized, "Access token is invalid."},
	"token_expired":      {http.StatusUnauthorized, "Access token expired"},
	"system_unknown":     {http.StatusNotFound, "System not found"},
	"overloaded":         {http.StatusTooManyRequests, "Too many requests are in flight. Nothing was done."},
	"caller_overloaded":  {http.StatusTooManyRequests, "Too many requests of yours are in flight. Nothing was done."},
	"rate_limited":       {http.StatusTooManyRequests, "More requests came than the site allows in the time. Nothing was done."},
	"busy":               {http.StatusTooManyRequests, "No session on the system became free in time. Nothing was done."},
	"node_unavailable":   {http.StatusServiceUnavailable, "The ssh service for the requested system is unhealthy."},
	"node_login_refused": {http.StatusFailedDependency, "Unable to establish SSH connection."},
	"host_key_refused":   {http.StatusFailedDependency, "Unable to establish SSH connection."},
	"outcome_unknown":    {http.StatusFailedDependency, "SSH connection Reset. The outcome of the command is unknown."},
	"timeout":            {http.StatusRequestTimeout, "Command execution timeout limit exceeded."},
	"policy_denied":      {http.StatusForbidden, ""},
	"field_invalid":      {http.StatusBadRequest, ""},
}

// errorBody is what every error has, always with these five keys.
type errorBody struct {
	ErrorType string     `json:"errorType"`
	Message   string     `json:"message"`
	CausedBy  []string   `json:"causedBy"`
	Data      *errorData `json:"data"`
	User      *string    `json:"user"`
}

type errorData struct {
	Fields []fieldError `json:"fields"`
}

// A fieldError is an input that is not acceptable.
type fieldError struct {
	Location string `json:"location"` // "path", "query" or "body"
	Name     string `json:"name"`
	Message  string `json:"message"`
}

// Fail implements [httpapi.Mounted]. The header F7T-ErrorCode, which FirecREST
// does not have, has the stable code that the body has no place for.
func (h *Handler) Fail(w http.ResponseWriter, r *http.Request, caller identity.Identity, refusal httpapi.Refusal) string {
	f := failureOf(refusal)
	body := errorBody{ErrorType: "error", Message: f.message, CausedBy: f.causedBy}
	if f.kind != "" {
		body.ErrorType = f.kind
	}
	if f.fields != nil {
		body.Data = &errorData{f.fields}
	}
	setHeaders(w, r)
	if caller.Valid() {
		login := caller.Login()
		body.User = &login
		w.Header().Set("F7T-AuthUsername", login)
	}
	w.Header().Set("F7T-ErrorCode", f.code)
	if f.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(f.retry))
	}
	text, err := json.Marshal(body)
	if err != nil { // strings always encode
		text = []byte(`{"errorType":"error","message":"Internal error","causedBy":null,"data":null,"user":null}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(f.status)
	_, _ = w.Write(text) // a client that is gone needs no answer
	return f.code
}

// failureOf is what the client is told about an error.
func failureOf(refusal httpapi.Refusal) failure {
	if f, ok := errors.AsType[*failure](refusal.Err); ok {
		told := *f
		told.code = cmp.Or(f.code, "failed")
		return told
	}
	if e, ok := errors.AsType[*executor.CommandError](refusal.Err); ok {
		return failure{
			status: http.StatusBadRequest, kind: "validation", code: refusal.Code, message: "body " + e.Error(),
			fields: []fieldError{{"body", e.Field, e.Detail}},
		}
	}
	told := failure{status: refusal.Status, message: refusal.Detail, code: refusal.Code}
	if row, ok := refusals[refusal.Code]; ok {
		told.status, told.message = row.status, cmp.Or(row.message, told.message)
	}
	return told
}
