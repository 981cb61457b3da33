package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"sallyport/executor"
)

func TestBackPressureSaysWhoseAndUntilWhen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		code   string
		retry  string
	}{
		{executor.NewRetryError(executor.ErrBusy, 17*time.Second), http.StatusServiceUnavailable, "busy", "17"},
		{executor.NewRetryError(executor.ErrCallerBusy, 3*time.Second), http.StatusTooManyRequests, "caller_overloaded", "3"},
		{fmt.Errorf("%w: x", executor.ErrBusy), http.StatusServiceUnavailable, "busy", "1"},
	} {
		s := start(t, func(cfg *Config) {
			cfg.Commands = fakeRunner{func(context.Context, executor.Command) (executor.Result, error) { return executor.Result{}, c.err }}
		})
		a := s.do(http.MethodPost, "/v1/systems/daint/exec", `{"command": "true"}`, "Authorization", "Bearer "+good)
		if a.status != c.status || a.header.Get("Retry-After") != c.retry || a.problem(t).Code != c.code {
			t.Errorf("%v: got %d %q, Retry-After %q", c.err, a.status, a.problem(t).Code, a.header.Get("Retry-After"))
		}
	}
}
