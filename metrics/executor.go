package metrics

import (
	"sallyport/executor"
	"sallyport/executor/admission"
	"sallyport/executor/pool"
)

var (
	running = gauge("commands_running", "Commands and uses of files under way, those that wait for a session included.")

	fileChannels   = gauge("file_channels", "SFTP channels that are open.")
	fileOperations = counter("file_operations_total", "Calls of file operations.")
	fileFailures   = counter("file_operation_failures_total", "Calls of file operations that returned an error.")
	fileCommands   = counter("file_commands_total", "Calls of file operations that were commands, for want of SFTP.")
	fileBytes      = counter("file_bytes_total", "Content of files that passed, by direction.", "direction")

	warmSessions  = gauge("warm_sessions", "Warm sessions that are open.")
	warmOpened    = counter("warm_sessions_opened_total", "Warm sessions begun.")
	warmFailed    = counter("warm_session_failures_total", "Attempts to begin a warm session that came to nothing.")
	warmDiscarded = counter("warm_sessions_discarded_total", "Warm sessions ended because of a doubt about them.")
	commands      = counter("commands_total", "Commands given a session, by its kind.", "session")

	poolOpen     = gauge("pool_connections", "Open connections.", "system")
	poolIdle     = gauge("pool_idle_connections", "Open connections that no session uses.", "system")
	poolDialing  = gauge("pool_dialing", "Logins under way.", "system")
	poolLeases   = gauge("pool_sessions", "Sessions in use.", "system")
	poolWaiting  = gauge("pool_waiting", "Callers that wait for a session of their connections.", "system")
	poolWaits    = counter("pool_waits_total", "Callers that had to wait for a session.", "system")
	poolWaited   = counter("pool_wait_seconds_total", "Time that they waited, added up.", "system")
	poolFull     = counter("pool_full_total", "Callers that got no session in time.", "system")
	poolRefusals = counter("pool_session_refusals_total", "Sessions that nodes refused to open.", "system")
	poolDials    = counter("pool_dials_total", "Logins begun.", "system")
	poolFailures = counter("pool_dial_failures_total", "Logins that failed.", "system")
	poolClosed   = counter("pool_closed_total", "Connections closed, by reason.", "system", "reason")
)

var (
	gateLimit    = gauge("node_starts_limit", "Commands that may be starting on the node at once.", "system", "node")
	gateOut      = gauge("node_starts", "Commands that are starting on the node.", "system", "node")
	gateWaiting  = gauge("node_waiting", "Requests that wait for their turn at the node.", "system", "node")
	gateUsers    = gauge("node_waiting_users", "Users with a request that waits.", "system", "node")
	gateWaits    = counter("node_waits_total", "Requests that had to wait.", "system", "node")
	gateWaited   = counter("node_wait_seconds_total", "Time that they waited, added up.", "system", "node")
	gateRefused  = counter("node_refusals_total", "Requests refused for the queue, by reason.", "system", "node", "reason")
	gateBaseline = gauge("node_start_baseline_seconds", "How long a start takes while the node has little to do.", "system", "node")
	nodeDead     = gauge("node_unreachable", "1: the node could not be reached and is tried again with growing pauses; 0: it can be, as far as is known.", "system", "node")
	nodeFailures = counter("node_unreachable_total", "Logins that could not reach the node and had it left alone for a while.", "system", "node")
	gateRecent   = gauge("node_start_recent_seconds", "How long starts take now.", "system", "node")
)

func gateSamples(system, node string, s admission.Stats) []sample {
	at := []string{system, node}
	return []sample{
		of(gateLimit, s.Limit, at...), of(gateOut, s.Out, at...), of(gateWaiting, s.Waiting, at...), of(gateUsers, s.Users, at...),
		of(gateWaits, s.Waits, at...), of(gateWaited, s.WaitTime, at...),
		of(gateRefused, s.Refused, system, node, "no_time_or_room"), of(gateRefused, s.RefusedOwn, system, node, "own_share"),
		of(gateRefused, s.Cancelled, system, node, "client_gone"),
		of(gateBaseline, s.Baseline, at...), of(gateRecent, s.Recent, at...),
	}
}

// Executor adds what an executor knows.
func (m *Metrics) Executor(stats func() executor.Stats) {
	m.registry.MustRegister(snapshot(func() []sample {
		s := stats()
		samples := []sample{
			of(running, s.Running),
			of(fileChannels, s.Files.Channels), of(fileOperations, s.Files.Operations), of(fileFailures, s.Files.Failed),
			of(fileCommands, s.Files.Commands), of(fileBytes, s.Files.Read, "read"), of(fileBytes, s.Files.Written, "written"),
			of(warmSessions, s.Sessions.Warm), of(warmOpened, s.Sessions.Opened), of(warmFailed, s.Sessions.Failed),
			of(warmDiscarded, s.Sessions.Discarded), of(commands, s.Sessions.Shared, "warm"), of(commands, s.Sessions.Isolated, "isolated"),
		}
		for system, p := range s.Pools {
			samples = append(samples, poolSamples(system, p)...)
			for node, gate := range s.Nodes[system] {
				samples = append(samples, gateSamples(system, node, gate)...)
				state := s.Circuits[system][node]
				samples = append(samples, of(nodeDead, truth(state.Open), system, node), of(nodeFailures, state.Opened, system, node))
			}
		}
		return samples
	}))
}

func poolSamples(system string, p pool.Stats) []sample {
	samples := []sample{
		of(poolOpen, p.Open, system), of(poolIdle, p.Idle, system), of(poolDialing, p.Dialing, system),
		of(poolLeases, p.Leases, system), of(poolWaiting, p.Waiting, system),
		of(poolWaits, p.Waits, system), of(poolWaited, p.WaitTime, system), of(poolFull, p.Full, system),
		of(poolRefusals, p.Refusals, system), of(poolDials, p.Dials, system), of(poolFailures, p.DialFailures, system),
	}
	for _, end := range []struct {
		reason string
		count  uint64
	}{
		{"idle", p.IdleClosed},
		{"evicted", p.Evicted},
		{"renewed", p.Renewed},
		{"expired", p.Expired},
		{"cut_off", p.CutOff},
		{"no_sign_of_life", p.ProbesFailed},
		{"lost", p.Lost},
	} {
		samples = append(samples, of(poolClosed, end.count, system, end.reason))
	}
	return samples
}
