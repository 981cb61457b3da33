package loginnode

import (
	"testing"
	"time"
)

// The command has ended before the clock is read again: its time is with the
// process that waited for it. The shell itself says how much it was.
func TestCPUTimeHasThatOfCommandsThatHaveEnded(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	n := start(t, Config{Users: twoUsers(), TrustedUserCAKeys: ca.trust()})
	client := ca.mustLogin(t, n, n.Users()[0])
	before, err := n.CPUTime()
	if err != nil {
		t.Fatal(err)
	}
	// It counts until the shell has used 200 ms by its own account.
	run(t, client, `while [ "$(awk '{ print ($14 + $15 >= 20) }' /proc/$$/stat)" = 0 ]; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; done`)
	var after time.Duration
	eventually(t, "the 200 ms of the command are in the node's time", func() bool {
		if after, err = n.CPUTime(); err != nil {
			t.Fatal(err)
		}
		return after-before >= 200*time.Millisecond
	})
}

func TestTicksOfAProcessWithAnOddName(t *testing.T) {
	t.Parallel()
	stat := "1234 (a) b (c) S 1 1 1 0 -1 4194560 1 2 3 4 10 20 300 4000 20 0 1 0 5 6 7"
	if got, err := processTicks([]byte(stat)); err != nil || got != 4330 {
		t.Errorf("got %d, %v, want 4330", got, err)
	}
	for _, bad := range []string{"", "1234 (short) S 1 2 3", "1 (x) S 1 1 1 0 -1 1 1 2 3 4 10 x 300 4000 20"} {
		if _, err := processTicks([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
