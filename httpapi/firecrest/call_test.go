package firecrest_test

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"sallyport/executor"
	"sallyport/httpapi/firecrest"
	"sallyport/identity"
)

// A printing executor runs commands that print much and, if they are mallory's, go on.
type printing struct {
	refusing
	printed *sync.WaitGroup
	end     <-chan struct{}
}

func (p printing) System(identity.Identity, string) (executor.SystemInfo, error) {
	return executor.SystemInfo{Name: "ClusterA"}, nil
}

func (p printing) Run(_ context.Context, caller identity.Identity, _ string, cmd executor.Command) (executor.Result, error) {
	_, err := cmd.Stdout.Write(make([]byte, 3<<20))
	if caller.Login() == "mallory" {
		p.printed.Done()
		<-p.end
	}
	return executor.Result{}, err
}

// What the commands of one caller print is bounded together: he can have his own
// programs in the place of the scheduler's.
func TestOutputsOfOneCallerAreBoundedTogether(t *testing.T) {
	t.Parallel()
	const calls, commands, fit = 30, 2, 64 / 3
	var printed, answered sync.WaitGroup
	end := make(chan struct{})
	s := serve(t, firecrest.Config{Commands: printing{printed: &printed, end: end}, Systems: []firecrest.System{{Name: "ClusterA", Scheduler: "slurm"}}})
	get := func(login string) int { return s.as(login, "GET", "/compute/clustera/jobs", "").status }
	printed.Add(calls * commands)
	statuses := make(chan int, calls)
	for range calls {
		answered.Go(func() { statuses <- get("mallory") })
	}
	printed.Wait()
	if status := get("alice"); status != http.StatusOK {
		t.Errorf("another caller is answered %d", status)
	}
	close(end)
	answered.Wait()
	close(statuses)
	whole := 0
	for status := range statuses {
		switch status {
		case http.StatusOK:
			whole++
		case http.StatusRequestEntityTooLarge:
		default:
			t.Errorf("answered %d", status)
		}
	}
	if whole > fit/commands {
		t.Errorf("%d calls had all their output, there is room for %d", whole, fit/commands)
	}
	printed.Add(commands)
	if status := get("mallory"); status != http.StatusOK {
		t.Errorf("afterwards: %d", status)
	}
}
