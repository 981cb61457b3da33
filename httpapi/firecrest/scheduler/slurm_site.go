package scheduler

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Nodes lists the compute nodes, each once.
func (Slurm) Nodes(ctx context.Context, run Runner) ([]Node, error) {
	t := newTable("NodeList", "Sockets", "Cores", "Threads", "CPUs", "CPUsLoad", "FreeMem", "Features", "NodeAddr", "NodeHost",
		"StateLong", "PartitionName", "Weight", "AllocMem", "CPUsState")
	result, err := run(ctx, command("sinfo", "--all", "--Node", "--noheader", "--Format="+t.format()))
	if err != nil {
		return nil, err
	}
	if result.ExitCode != 0 {
		return nil, failed(result, Other)
	}
	nodes, index := []Node{}, map[string]int{}
	for _, row := range t.rows(result.Stdout) {
		if i, ok := index[row[0]]; ok { // a row for each partition of the node
			nodes[i].Partitions = append(nodes[i].Partitions, row[11])
			continue
		}
		index[row[0]] = len(nodes)
		cpus := append(strings.Split(row[14], "/"), "", "") // allocated/idle/other/total
		nodes = append(nodes, Node{
			Name: row[0], Sockets: count(row[1]), Cores: count(row[2]), Threads: count(row[3]), CPUs: count(row[4]),
			CPULoad: real(row[5]), FreeMemory: number(row[6]), Features: text(row[7]), Address: text(row[8]), Hostname: text(row[9]),
			State: nodeState(row[10]), Partitions: []string{row[11]}, Weight: number(row[12]), AllocMemory: number(row[13]),
			AllocCPUs: number(cpus[0]), IdleCPUs: number(cpus[1]),
		})
	}
	return nodes, nil
}

func real(s string) *float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return nil
	}
	return &f
}

// nodeStates are Slurm's words, long and short, in those of FirecREST.
var nodeStates = map[string]string{
	"idle": "IDLE", "allocated": "ALLOCATED", "alloc": "ALLOCATED", "mixed": "MIXED", "mix": "MIXED",
	"down": "DOWN", "fail": "DOWN", "failing": "DOWN", "failg": "DOWN",
	"drain": "DRAIN", "drained": "DRAIN", "draining": "DRAIN", "drng": "DRAIN",
	"completing": "COMPLETING", "comp": "COMPLETING", "maint": "OFFLINE", "reserved": "RESERVED", "resv": "RESERVED",
	"powering_down": "POWERING_DOWN", "powered_down": "POWERING_DOWN", "power_down": "POWERING_DOWN", "pow_dn": "POWERING_DOWN",
	"powering_up": "POWERING_UP", "power_up": "POWERING_UP", "pow_up": "POWERING_UP",
}

// nodeState drops the flags that sinfo adds.
func nodeState(s string) []string {
	if state, ok := nodeStates[strings.TrimRight(s, "*+~#%$@!^-")]; ok {
		return []string{state}
	}
	return []string{"UNKNOWN"}
}

// Partitions lists them all, the hidden ones too.
func (Slurm) Partitions(ctx context.Context, run Runner) ([]Partition, error) {
	result, err := run(ctx, command("scontrol", "--all", "--oneliner", "show", "partitions"))
	if err != nil {
		return nil, err
	}
	if result.ExitCode != 0 {
		return nil, failed(result, Other)
	}
	partitions := []Partition{}
	for line := range strings.Lines(string(result.Stdout)) {
		r := record(line)
		if r["PartitionName"] == "" {
			continue
		}
		partitions = append(partitions, Partition{
			Name: r["PartitionName"], CPUs: count(r["TotalCPUs"]), TotalNodes: count(r["TotalNodes"]),
			State: r["State"], Hidden: r["Hidden"] == "YES",
		})
	}
	return partitions, nil
}

// Reservations lists those that the caller may see.
func (Slurm) Reservations(ctx context.Context, run Runner) ([]Reservation, error) {
	result, err := run(ctx, command("scontrol", "--all", "--oneliner", "show", "reservations"))
	if err != nil {
		return nil, err
	}
	if result.ExitCode != 0 {
		return nil, failed(result, Other)
	}
	reservations := []Reservation{}
	for line := range strings.Lines(string(result.Stdout)) {
		r := record(line) // "No reservations in the system" has no such key
		if r["ReservationName"] == "" {
			continue
		}
		reservations = append(reservations, Reservation{
			Name: r["ReservationName"], Nodes: text(r["Nodes"]), Start: number(r["StartTime"]), End: number(r["EndTime"]),
			Features: text(r["Features"]), State: strings.ToLower(r["State"]),
		})
	}
	return reservations, nil
}

var pair = regexp.MustCompile(`(?:^|\s)([A-Za-z][A-Za-z0-9_/:]*)=(\S*)`)

// record reads a line of "scontrol --oneliner"; the first of a key counts. None of
// the values used here can have a space.
func record(line string) map[string]string {
	values := map[string]string{}
	for _, m := range pair.FindAllStringSubmatch(line, -1) {
		if _, seen := values[m[1]]; !seen {
			values[m[1]] = m[2]
		}
	}
	return values
}

// Accounts lists those of a user; nil if the accounting does not answer.
func (Slurm) Accounts(ctx context.Context, run Runner, user string) ([]Account, error) {
	all, preferred, err := both(ctx, run,
		command("sacctmgr", "--noheader", "--parsable2", "show", "assoc", "where", "user="+user, "format=account"),
		command("sacctmgr", "--noheader", "--parsable2", "show", "user", "where", "name="+user, "format=defaultaccount"))
	if err != nil {
		return nil, err
	}
	if all.ExitCode != 0 {
		return nil, nil
	}
	first := strings.TrimSpace(string(preferred.Stdout))
	names := strings.Fields(string(all.Stdout))
	slices.Sort(names)
	var accounts []Account
	for _, name := range slices.Compact(names) {
		accounts = append(accounts, Account{Name: name, Default: preferred.ExitCode == 0 && name == first})
	}
	return accounts, nil
}

// Ping asks whether the controller answers, and returns what it says.
func (Slurm) Ping(ctx context.Context, run Runner) (string, error) {
	result, err := run(ctx, command("scontrol", "ping"))
	if err != nil {
		return "", err
	}
	said := strings.TrimSpace(string(result.Stdout))
	if result.ExitCode != 0 || !strings.Contains(said, " is UP") {
		return said, failed(result, Other)
	}
	return said, nil
}
