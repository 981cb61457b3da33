package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// process are attacks by code that runs on the service's machine, or in it.
func process() []attack {
	return []attack{
		{"the service's process: new privileges, calls that are filtered", "none, all threads", func(ctx context.Context, s *site) (string, error) {
			v, err := s.serve(ctx, settings{server: `sandbox = "require"`})
			if err != nil {
				return "", err
			}
			tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", v.cmd.Process.Pid))
			if err != nil {
				return "", err
			}
			for _, t := range tasks {
				status, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", v.cmd.Process.Pid, t.Name()))
				if err != nil {
					return "", err
				}
				// Seccomp 2 is a filter (proc(5)).
				if text := string(status); !strings.Contains(text, "NoNewPrivs:\t1\n") || !strings.Contains(text, "Seccomp:\t2\n") {
					return "a thread is free", nil
				}
			}
			return "none, all threads", nil
		}},
	}
}
