package scheduler

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/executor"
)

// recorded answers a command with what others recorded of it: testdata/pbs has
// output of real servers (versions 19 and 20), with names replaced.
func recorded(t *testing.T, result executor.Result, seen *executor.Command) Runner {
	t.Helper()
	return func(_ context.Context, cmd executor.Command) (executor.Result, error) {
		*seen = cmd
		return result, nil
	}
}

func file(t *testing.T, name string) executor.Result {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "pbs", name))
	if err != nil {
		t.Fatal(err)
	}
	return executor.Result{Stdout: append([]byte("Welcome!\n"), text...)}
}

func TestPBSJobsAreRead(t *testing.T) {
	t.Parallel()
	var cmd executor.Command
	run := recorded(t, file(t, "job.json"), &cmd)
	got, err := PBS{}.Jobs(t.Context(), run, Query{ID: "12860476"})
	if err != nil || len(got.Jobs) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	if line := strings.Join(cmd.Argv, " "); line != "env LC_ALL=C TZ=UTC qstat -x -f -F json 12860476" {
		t.Errorf("command %s", line)
	}
	running, ended := got.Jobs[0], got.Jobs[1]
	want := Job{
		ID: "12860476", Name: "swrap_01", Cluster: "pbs.example.org", Partition: "short_2h", User: new("jan"), Priority: new(int64(0)),
		Nodes: "node24,node21", AllocationNodes: 2, WorkingDirectory: "/storage/home/jan/my tests", Tasks: []Task{},
		Status: Status{State: "R", StateReason: new("Job run at Tue Oct 04 at 21:23 on (node24:ncpus=2:mem=4194304kb)+(node21:ncpus=2:mem=4194304kb)")},
		Time:   Times{Start: new(int64(1664918613)), Limit: new(int64(60))},
	}
	if diff := cmp.Diff(want, running); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if ended.Status.State != "F" || *ended.Status.InterruptSignal != 15 || *ended.Status.ExitCode != 0 || *ended.Account != "climate" ||
		*ended.Time.End != 1710335413 || *ended.Time.Elapsed != 86732 || ended.Nodes != "node1299" {
		t.Errorf("%+v", ended)
	}
	// A list has the caller's own, and none that ended long ago.
	got, err = PBS{}.Jobs(t.Context(), run, Query{User: "jan", Hours: 24})
	if err != nil || len(got.Jobs) != 1 || got.Jobs[0].ID != "12860476" {
		t.Errorf("%v, %v", got, err)
	}
	meta, err := PBS{}.Metadata(t.Context(), run, "12860476")
	// Weakness in the original: standard output and error were swapped.
	if err != nil || *meta[0].StandardOutput != "/storage/home/jan/my tests/swrap_01.o12860476" ||
		*meta[0].StandardError != "/storage/home/jan/my tests/swrap_01.e12860476" || meta[0].Script != nil {
		t.Errorf("%v, %v", meta, err)
	}
}

func TestPBSNodesAndQueuesAreRead(t *testing.T) {
	t.Parallel()
	var cmd executor.Command
	nodes, err := PBS{}.Nodes(t.Context(), recorded(t, file(t, "nodes.json"), &cmd))
	if err != nil || len(nodes) != 2 {
		t.Fatalf("%v, %v", nodes, err)
	}
	n := nodes[0]
	if n.Name != "hpcnode03" || n.CPUs != 56 || *n.AllocCPUs != 32 || *n.IdleCPUs != 24 || *n.AllocMemory != 272384 || *n.FreeMemory != 102616 ||
		n.State[0] != "IDLE" || n.Partitions[0] != "normal" || nodes[1].State[0] != "UNKNOWN" {
		t.Errorf("%+v", nodes)
	}
	queues, err := PBS{}.Partitions(t.Context(), recorded(t, file(t, "queues.json"), &cmd))
	want := []Partition{{Name: "closed", State: "DOWN"}, {Name: "qexp", CPUs: 576, TotalNodes: 16, State: "UP"}}
	if diff := cmp.Diff(want, queues); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// The text is put together from the manual pbs_rstat(1B), not recorded.
func TestPBSReservationsAreRead(t *testing.T) {
	t.Parallel()
	var cmd executor.Command
	text := "Resv ID: R12.pbs\nReserve_Name = NULL\nReserve_Owner = jan@login\nreserve_state = RESV_CONFIRMED\n" +
		"reserve_start = Tue Oct 04 21:00:00 2022\nreserve_end = Tue Oct 04 22:00:00 2022\nresv_nodes = (node21:ncpus=2)\n\n"
	got, err := PBS{}.Reservations(t.Context(), recorded(t, executor.Result{Stdout: []byte(text)}, &cmd))
	want := []Reservation{{
		Name: "R12.pbs", State: "confirmed", Start: new(int64(1664917200)), End: new(int64(1664920800)), Nodes: new("(node21:ncpus=2)"),
	}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	got, err = PBS{}.Reservations(t.Context(), recorded(t, executor.Result{}, &cmd))
	if err != nil || got == nil || len(got) != 0 {
		t.Errorf("none: %v, %v", got, err)
	}
}

func TestPBSSubmitsWithTheEnvironmentOffTheCommandLine(t *testing.T) {
	t.Parallel()
	var cmd executor.Command
	run := recorded(t, executor.Result{Stdout: []byte("Welcome!\n1234[].pbs.example.org\n")}, &cmd)
	id, err := PBS{}.Submit(t.Context(), run, Submission{
		WorkingDirectory: "/w", Name: "n", Account: "p", Partition: "q", Script: "#!/bin/sh\n", Env: map[string]string{"A": "1,2"},
	})
	if err != nil || id != "1234[]" {
		t.Fatalf("%q, %v", id, err)
	}
	script, _ := io.ReadAll(cmd.Stdin)
	if strings.Join(cmd.Argv, " ") != "qsub -V -N n -q q -P p" || cmd.Workdir != "/w" || cmd.Env["A"] != "1,2" || string(script) != "#!/bin/sh\n" {
		t.Errorf("%+v", cmd)
	}
	_, err = PBS{}.Submit(t.Context(), run, Submission{ScriptPath: "-x.sh", Env: map[string]string{"PATH": "/p"}})
	if err != nil || cmd.Argv[0] != "/bin/sh" || cmd.Argv[len(cmd.Argv)-1] != "./-x.sh" || cmd.Env["SALLYPORT_JOB_PATH"] != "/p" {
		t.Errorf("%v, %+v", err, cmd)
	}
}

func TestPBSRefusals(t *testing.T) {
	t.Parallel()
	for stderr, want := range map[string]Reason{
		"qdel: Unknown Job Id 99.pbs": NoJob, "qdel: Job has finished 7.pbs": Finished, "qdel: Unauthorized Request  7.pbs": Denied, "qdel: x": Other,
	} {
		var cmd executor.Command
		run := recorded(t, executor.Result{ExitCode: 1, Stderr: []byte(stderr)}, &cmd)
		refused, ok := errors.AsType[*Error](PBS{}.Cancel(t.Context(), run, "99"))
		if !ok || refused.Reason != want {
			t.Errorf("%q: %v", stderr, refused)
		}
		jobs, err := PBS{}.Jobs(t.Context(), run, Query{ID: "99"})
		if (want == NoJob) != (err == nil) || len(jobs.Jobs) != 0 {
			t.Errorf("%q: %v, %v", stderr, jobs, err)
		}
	}
	if refused, ok := errors.AsType[*Error](PBS{}.Attach(t.Context(), nil, "1", "x")); !ok || refused.Reason != NotThere {
		t.Error(refused)
	}
}

func FuzzPBSJobs(f *testing.F) {
	text, err := os.ReadFile("testdata/pbs/job.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{` + "\n" + `"Jobs":{"1":{"Job_Name":7,"Resource_List":{"nodect":"2"},"exec_host":"+/"}}}`))
	f.Fuzz(func(t *testing.T, printed []byte) {
		var cmd executor.Command
		run := func(_ context.Context, c executor.Command) (executor.Result, error) {
			cmd = c
			return executor.Result{Stdout: printed}, nil
		}
		if _, err := (PBS{}).Jobs(t.Context(), run, Query{AllUsers: true, Hours: 1}); err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("%v of %v", err, cmd.Argv)
			}
		}
	})
}
