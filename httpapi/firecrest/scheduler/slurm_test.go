package scheduler

import (
	"slices"
	"testing"
)

func TestTheControllerIsBelievedWhereTheAccountingIsLate(t *testing.T) {
	t.Parallel()
	step := []Task{{ID: "1.batch"}}
	job := func(state, nodes string, tasks []Task) Job {
		return Job{ID: "1", Name: "n", Nodes: nodes, Partition: "p", Status: Status{State: state}, Tasks: tasks}
	}
	for name, c := range map[string]struct{ past, present, want Job }{
		"it started":         {job("PENDING", "None assigned", nil), job("RUNNING", "n1", nil), job("RUNNING", "n1", nil)},
		"it waits":           {job("PENDING", "None assigned", nil), job("PENDING", "", nil), job("PENDING", "", nil)},
		"it runs":            {job("RUNNING", "n1", step), job("RUNNING", "n2", nil), job("RUNNING", "n1", step)},
		"it ended":           {job("RUNNING", "n1", step), job("FAILED", "n1", nil), job("FAILED", "n1", step)},
		"it was requeued":    {job("RUNNING", "n1", step), job("PENDING", "", nil), job("PENDING", "", step)},
		"both know its end":  {job("CANCELLED by 7", "n1", step), job("CANCELLED", "n1", nil), job("CANCELLED by 7", "n1", step)},
		"half of it is lost": {Job{ID: "1", Name: "", Nodes: "n1", Status: Status{State: "FAILED"}}, job("FAILED", "n1", nil), job("FAILED", "n1", nil)},
	} {
		got := merge([]Job{c.past}, []Job{c.present})
		if len(got) != 1 || got[0].Status != c.want.Status || got[0].Nodes != c.want.Nodes || got[0].Name != "n" || got[0].Partition != "p" ||
			!slices.EqualFunc(got[0].Tasks, c.want.Tasks, func(a, b Task) bool { return a.ID == b.ID }) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	other := job("RUNNING", "n1", nil)
	other.ID = "2"
	if got := merge([]Job{job("COMPLETED", "n1", nil)}, []Job{other}); len(got) != 2 || got[1].ID != "2" {
		t.Errorf("%+v", got)
	}
}

func TestScontrolIsReadThoughNamesHoldNewlines(t *testing.T) {
	t.Parallel()
	printed := "noise\nJobId=7 ArrayJobId=6 ArrayTaskId=1 JobName=a\n   StdOut=/wrong\n   UserId=u(1)\n   WorkDir=/w\n   StdErr=/w/err or\n   StdIn=/dev/null\n   StdOut=/w/o u t\n   Power=\n\n" +
		"JobId=6 ArrayJobId=6 ArrayTaskId=2-3%1 JobName=a\n   StdOut=(null)\n\nJobId=9 HetJobId=8 HetJobOffset=1 JobName=b\n"
	got := shown([]byte(printed))
	if len(got) != 3 || got[0].ID != "6_1" || got[1].ID != "6_[2-3%1]" || got[2].ID != "8+1" {
		t.Fatalf("%+v", got)
	}
	if *got[0].StandardOutput != "/w/o u t" || *got[0].StandardError != "/w/err or" || got[1].StandardOutput != nil {
		t.Errorf("%+v", got[0])
	}
}
