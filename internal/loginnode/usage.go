package loginnode

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// ticksPerSecond is the unit of times in /proc: USER_HZ, which is 100 on every architecture that Go runs on.
const ticksPerSecond = 100

// CPUTime is the processor time that the node has used since its start, in steps of 10 ms: sshd, the commands that it runs,
// and all that have ended. Without root it leaves out what ended after its parent did.
func (n *Node) CPUTime() (time.Duration, error) {
	p, err := n.running()
	if err != nil {
		return 0, err
	}
	members, err := p.members()
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, m := range members {
		stat, err := os.ReadFile(procPath(m.PID, "stat"))
		if err != nil {
			continue // it has ended; its parent has its time
		}
		used, err := processTicks(stat)
		if err != nil {
			return 0, fmt.Errorf("loginnode: process %d: %w", m.PID, err)
		}
		ticks += used
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// processTicks are the times of a process and of its children that it has waited for: fields 14 to 17 of /proc/PID/stat
// (proc_pid_stat(5)). The name in field 2 may hold spaces and parentheses.
func processTicks(stat []byte) (ticks int64, err error) {
	const first, last = 14, 17
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // from field 3
	if len(fields) <= last-3 {
		return 0, fmt.Errorf("stat has %d fields", len(fields)+2)
	}
	for _, field := range fields[first-3 : last-3+1] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return ticks, nil
}
