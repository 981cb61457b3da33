package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"
)

// hardenProcess keeps the memory of this process, which holds keys and tokens, out
// of core files and away from other processes of the same user: no ptrace(2), no
// /proc/PID/mem (PR_SET_DUMPABLE, prctl(2)). Programs that it starts are not
// affected, except that they write no core files either. A kernel that refuses is
// no reason not to serve; the error says what was refused.
func hardenProcess() error {
	var errs []error
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		errs = append(errs, fmt.Errorf("memory is open to processes of the same user: %w", err))
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		errs = append(errs, fmt.Errorf("core files are possible: %w", err))
	}
	return errors.Join(errs...)
}

// lockMemory keeps all memory of the process, present and future, out of swap, if
// the process may lock as much as it likes (CAP_IPC_LOCK, or LimitMEMLOCK=infinity
// in the unit). Within a finite limit it locks nothing: once the limit is reached,
// Go could get no more memory and the service would end.
//
// Pages are locked as they are touched (MCL_ONFAULT), which includes those of the
// database that were read.
func lockMemory(ctx context.Context, log *slog.Logger) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	if err == nil && limit.Cur != unix.RLIM_INFINITY && !mayLockAll() {
		log.LogAttrs(ctx, slog.LevelInfo, "memory is not locked and may be swapped: its limit is finite",
			slog.Uint64("limit_bytes", limit.Cur))
		return
	}
	if err == nil {
		err = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	}
	if err != nil {
		log.LogAttrs(ctx, slog.LevelInfo, "memory is not locked and may be swapped", slog.String("error", err.Error()))
		return
	}
	log.LogAttrs(ctx, slog.LevelInfo, "memory is locked: none of it is swapped")
}

// mayLockAll says whether the process has CAP_IPC_LOCK in effect.
func mayLockAll() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}
