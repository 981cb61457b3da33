package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A usage is the processor time that each part has used so far.
type usage struct {
	sshd, sallyport, bench time.Duration
}

func (u usage) minus(v usage) usage {
	return usage{u.sshd - v.sshd, u.sallyport - v.sallyport, u.bench - v.bench}
}

// usage reads the clocks of the three parts. It comes before everything else that
// wants a processor, if this process may ask for that: sshd has hundreds of
// processes, and the reading must not take a part of what it measures.
func (s *site) usage(v *service) (u usage, err error) {
	var reading sync.WaitGroup
	reading.Go(func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, unix.Gettid(), -20)
		u, err = s.clocks(v)
	})
	reading.Wait()
	return u, err
}

// clocks reads them. sshd's includes its children, which are the commands.
func (s *site) clocks(v *service) (u usage, err error) {
	if u.sshd, err = s.node.CPUTime(); err != nil {
		return u, err
	}
	if u.sallyport, err = v.cpuTime(); err != nil {
		return u, err
	}
	u.bench, err = ownCPUTime()
	return u, err
}

// cpuTime is the processor time of the service: its process clock (clock_getcpuclockid(3)),
// which is finer than /proc/PID/stat.
func (v *service) cpuTime() (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED of the whole process, include/linux/posix-timers.h
	var ts unix.Timespec
	clock := int32(^v.cmd.Process.Pid)<<3 | schedClock //nolint:gosec // a PID has 22 bits
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("processor time of sallyport: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

func ownCPUTime() (time.Duration, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0, err
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), nil
}

// rss is the resident memory of the service in bytes.
func (v *service) rss() (int64, error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(v.cmd.Process.Pid), "status"))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if text, ok := strings.CutPrefix(string(line), "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmRSS", v.cmd.Process.Pid)
}
