package scheduler

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// asText is a JSON value as text; "" for one that is not there or has parts.
func asText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// ask runs a command that prints JSON.
func ask(ctx context.Context, run Runner, into any, argv ...string) error {
	result, err := run(ctx, pbsCommand(argv...))
	if err != nil {
		return err
	}
	if result.ExitCode != 0 {
		return failed(result, Other)
	}
	if err := json.Unmarshal(object(result.Stdout), into); err != nil {
		return &Error{ExitCode: result.ExitCode, Stderr: argv[0] + " printed no JSON"}
	}
	return nil
}

// Nodes lists the compute nodes. PBS counts no sockets and no threads.
func (PBS) Nodes(ctx context.Context, run Runner) ([]Node, error) {
	var printed struct {
		Nodes map[string]struct {
			Address   string         `json:"Mom"`
			State     string         `json:"state"`
			CPUs      int64          `json:"pcpus"`
			Queue     string         `json:"queue"`
			Priority  *int64         `json:"Priority"`
			Available map[string]any `json:"resources_available"`
			Assigned  map[string]any `json:"resources_assigned"`
		} `json:"nodes"`
	}
	if err := ask(ctx, run, &printed, "pbsnodes", "-a", "-F", "json"); err != nil {
		return nil, err
	}
	nodes := []Node{}
	for _, name := range slices.Sorted(maps.Keys(printed.Nodes)) {
		n := printed.Nodes[name]
		available, assigned := count(asText(n.Available["ncpus"])), count(asText(n.Assigned["ncpus"]))
		idle := available - assigned
		memory := megabytes(asText(n.Available["mem"]))
		used := megabytes(asText(n.Assigned["mem"]))
		node := Node{
			Name: name, Address: text(n.Address), Hostname: text(asText(n.Available["host"])), CPUs: available, Cores: n.CPUs,
			AllocCPUs: &assigned, IdleCPUs: &idle, AllocMemory: used, Weight: n.Priority, State: pbsNodeState(n.State), Partitions: []string{},
		}
		if memory != nil && used != nil {
			free := *memory - *used
			node.FreeMemory = &free
		}
		if queues := asText(n.Available["Qlist"]) + n.Queue; queues != "" {
			node.Partitions = strings.Split(queues, ",")
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

// pbsNodeStates are PBS's words in those of FirecREST.
var pbsNodeStates = map[string]string{
	"free": "IDLE", "job-busy": "ALLOCATED", "job-exclusive": "ALLOCATED", "busy": "BUSY", "resv-exclusive": "RESERVED",
	"down": "DOWN", "stale": "DOWN", "offline": "OFFLINE", "maintenance": "OFFLINE", "provisioning": "POWERING_UP", "sleep": "POWERING_DOWN",
}

func pbsNodeState(s string) []string {
	var states []string
	for word := range strings.SplitSeq(s, ",") {
		state, ok := pbsNodeStates[strings.TrimSpace(word)]
		if !ok {
			state = "UNKNOWN"
		}
		states = append(states, state)
	}
	return states
}

// megabytes reads a size such as "384000000kb".
func megabytes(s string) *int64 {
	units := []struct {
		suffix  string
		mul, by int64
	}{{"kb", 1, 1024}, {"mb", 1, 1}, {"gb", 1024, 1}, {"tb", 1024 * 1024, 1}, {"b", 1, 1024 * 1024}}
	for _, u := range units {
		if digits, ok := strings.CutSuffix(s, u.suffix); ok {
			n := number(digits)
			if n == nil || *n < 0 || *n > 1<<40 {
				return nil
			}
			size := *n * u.mul / u.by
			return &size
		}
	}
	return nil
}

// Partitions lists the queues that run jobs.
func (PBS) Partitions(ctx context.Context, run Runner) ([]Partition, error) {
	var printed struct {
		Queue map[string]struct {
			Type      string         `json:"queue_type"`
			Started   string         `json:"started"`
			Available map[string]any `json:"resources_available"`
		}
	}
	if err := ask(ctx, run, &printed, "qstat", "-Q", "-f", "-F", "json"); err != nil {
		return nil, err
	}
	partitions := []Partition{}
	for _, name := range slices.Sorted(maps.Keys(printed.Queue)) {
		q := printed.Queue[name]
		p := Partition{Name: name, State: "DOWN", CPUs: count(asText(q.Available["ncpus"])), TotalNodes: count(asText(q.Available["nodect"]))}
		if strings.EqualFold(q.Started, "true") {
			p.State = "UP"
		}
		partitions = append(partitions, p)
	}
	return partitions, nil
}

// Reservations lists those that the caller may see. pbs_rstat has no JSON.
func (PBS) Reservations(ctx context.Context, run Runner) ([]Reservation, error) {
	result, err := run(ctx, pbsCommand("pbs_rstat", "-f"))
	if err != nil {
		return nil, err
	}
	if result.ExitCode != 0 {
		return nil, failed(result, Other)
	}
	reservations := []Reservation{}
	for line := range strings.Lines(strings.ToValidUTF8(string(result.Stdout), "\uFFFD")) {
		line = strings.TrimRight(line, "\r\n")
		for _, head := range []string{"Resv ID: ", "Name: "} { // the newer and the older form
			if name, ok := strings.CutPrefix(line, head); ok {
				reservations = append(reservations, Reservation{Name: name, State: "unknown"})
			}
		}
		key, value, found := strings.Cut(line, " = ")
		if len(reservations) == 0 || !found {
			continue
		}
		r := &reservations[len(reservations)-1]
		switch strings.TrimSpace(key) {
		case "reserve_state":
			r.State = strings.ToLower(strings.TrimPrefix(value, "RESV_"))
		case "reserve_start":
			r.Start = pbsTime(value)
		case "reserve_end":
			r.End = pbsTime(value)
		case "resv_nodes":
			r.Nodes = text(value)
		}
	}
	return reservations, nil
}
