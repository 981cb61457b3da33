package firecrest_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A shape is what a JSON value must look like: a map with just these keys, a list
// whose elements all have one shape, or a word for a type, with "?" where null is
// allowed.
type shape any

// fits holds a value against a shape.
func fits(v any, want shape, at string) []string {
	switch want := want.(type) {
	case string:
		got := kindOf(v)
		if got != strings.TrimSuffix(want, "?") && (got != "null" || !strings.HasSuffix(want, "?")) {
			return []string{fmt.Sprintf("%s is %s, want %s", at, got, want)}
		}
		return nil
	case []shape:
		list, ok := v.([]any)
		if !ok {
			return []string{fmt.Sprintf("%s is %s, want a list", at, kindOf(v))}
		}
		var wrong []string
		for i, element := range list {
			wrong = append(wrong, fits(element, want[0], fmt.Sprintf("%s[%d]", at, i))...)
		}
		return wrong
	case map[string]shape:
		object, ok := v.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s is %s, want an object", at, kindOf(v))}
		}
		var wrong []string
		for key := range object {
			if _, known := want[key]; !known {
				wrong = append(wrong, at+"."+key+" is not in the contract")
			}
		}
		for key, inner := range want {
			if _, there := object[key]; !there {
				wrong = append(wrong, at+"."+key+" is missing")
				continue
			}
			wrong = append(wrong, fits(object[key], inner, at+"."+key)...)
		}
		return wrong
	}
	return []string{at + ": no such shape"}
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case string:
		return "string"
	case json.Number:
		if _, err := v.Int64(); err == nil {
			return "int"
		}
		return "float"
	case []any:
		return "list"
	}
	return "object"
}

// answers checks status, media type and shape.
func (a answer) answers(status int, want shape) map[string]any {
	a.t.Helper()
	if a.status != status || a.header.Get("Content-Type") != "application/json" {
		a.t.Fatalf("%s: status %d, want %d: %s", a.what, a.status, status, a.body)
	}
	dec := json.NewDecoder(strings.NewReader(a.body))
	dec.UseNumber()
	var v map[string]any
	if err := dec.Decode(&v); err != nil {
		a.t.Fatalf("%s: %v in %q", a.what, err, a.body)
	}
	for _, wrong := range fits(v, want, "answer") {
		a.t.Errorf("%s: %s\n%s", a.what, wrong, a.body)
	}
	return v
}

// words are values as text with spaces between.
func words(v ...any) string { return strings.TrimSuffix(fmt.Sprintln(v...), "\n") }

// element returns the element of a list under key that has name.
func element(t *testing.T, v map[string]any, key, name string) map[string]any {
	t.Helper()
	for _, e := range v[key].([]any) {
		if m := e.(map[string]any); m["name"] == name {
			return m
		}
	}
	t.Fatalf("no %q in %v", name, v)
	return nil
}

var systemsShape = map[string]shape{"systems": []shape{map[string]shape{
	"name": "string",
	"ssh": map[string]shape{
		"host": "string", "port": "int", "proxyHost": "string?", "proxyPort": "int?", "maxClients": "int",
		"timeout": map[string]shape{"connection": "int", "login": "int", "commandExecution": "int", "idleTimeout": "int", "keepAlive": "int"},
	},
	"scheduler": map[string]shape{
		"type": "string", "connectionMode": "string", "version": "string?", "apiUrl": "string?", "apiVersion": "string?", "timeout": "int",
	},
	"servicesHealth": "list?", "probing": "object?", "lastHealthCheck": "string?",
	"fileSystems": []shape{map[string]shape{"path": "string", "dataType": "string", "defaultWorkDir": "bool"}},
	"dataOperation": map[string]shape{
		"datatransfer_jobs_directives": []shape{"string"}, "max_ops_file_size": "int", "data_transfer": "object?",
	},
}}}

func TestSystems(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	v := c.as("alice", "GET", "/status/systems", "").answers(200, systemsShape)
	system := element(t, v, "systems", "clustera")
	if system["servicesHealth"] != nil || system["scheduler"].(map[string]any)["version"] != c.node.Version {
		t.Errorf("before the first call: %v", system)
	}
	// What users do shows how the services are.
	c.as("alice", "GET", "/status/clustera/nodes", "").answers(200, nodesShape)
	system = element(t, c.as("alice", "GET", "/status/systems/", "").answers(200, systemsShape), "systems", "clustera")
	var seen []string
	for _, check := range system["servicesHealth"].([]any) {
		for _, wrong := range fits(check, map[string]shape{
			"serviceType": "string", "lastChecked": "string", "latency": "float", "healthy": "bool", "message": "string?",
		}, "check") {
			t.Error(wrong)
		}
		m := check.(map[string]any)
		seen = append(seen, fmt.Sprint(m["serviceType"], m["healthy"]))
		if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$`).MatchString(m["lastChecked"].(string)) {
			t.Errorf("lastChecked %v", m["lastChecked"])
		}
	}
	if !slices.Equal(seen, []string{"schedulertrue", "sshtrue"}) {
		t.Errorf("health: %v", seen)
	}
	c.as("", "GET", "/status/liveness/", "").answers(200, map[string]shape{"healthcheckRuns": map[string]shape{"clustera": "string"}, "lastUpdate": "int"})
	c.as("", "GET", "/status/systems", "").fails(401, "Not authenticated")
}

var nodesShape = map[string]shape{"nodes": []shape{map[string]shape{
	"sockets": "int", "cores": "int", "threads": "int", "cpus": "int", "cpuLoad": "float?", "freeMemory": "int?", "features": "string?",
	"name": "string", "address": "string?", "hostname": "string?", "state": []shape{"string"}, "partitions": []shape{"string"},
	"weight": "int?", "allocMemory": "int?", "allocCpus": "int?", "idleCpus": "int?",
}}}

func TestNodes(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	v := c.as("alice", "GET", "/status/ClusterA/nodes", "").answers(200, nodesShape)
	if len(v["nodes"].([]any)) != 1 {
		t.Fatalf("%v", v)
	}
	node := element(t, v, "nodes", "localhost")
	// Weakness 49: each number is what it says.
	got := words(node["sockets"], node["cores"], node["threads"], node["cpus"], node["features"], node["partitions"], node["weight"])
	if got != "2 3 2 12 f7t [part01 hid] 1" {
		t.Errorf("got %s", got)
	}
	id := c.submit("alice", map[string]any{"script": "#!/bin/sh\n#SBATCH --mem=100\nsleep 300\n", "standardOutput": "/dev/null"})
	c.await("alice", id, "RUNNING")
	node = element(t, c.as("alice", "GET", "/status/clustera/nodes", "").answers(200, nodesShape), "nodes", "localhost")
	number := func(key string) int64 {
		n, err := node[key].(json.Number).Int64()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if memory := number("allocMemory"); memory < 100 || memory >= 4000 {
		t.Errorf("allocated memory %d", memory)
	}
	if used := number("allocCpus"); used < 1 || used+number("idleCpus") != 12 {
		t.Errorf("%v", node)
	}
	c.as("alice", "DELETE", jobsPath+"/"+id, "")
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	partitions := map[string]shape{"partitions": []shape{map[string]shape{"name": "string", "cpus": "int", "totalNodes": "int", "partition": "string"}}}
	for query, want := range map[string]int{"": 1, "?show_hidden=false": 1, "?show_hidden=": 1, "?show_hidden=TRUE": 2, "?show_hidden=1": 2, "?showHidden=true": 1} {
		v := c.as("alice", "GET", "/status/clustera/partitions"+query, "").answers(200, partitions)
		if got := len(v["partitions"].([]any)); got != want {
			t.Errorf("%q: %d partitions, want %d", query, got, want)
		}
		p := element(t, v, "partitions", "part01")
		if words(p["cpus"], p["totalNodes"], p["partition"]) != "12 1 UP" {
			t.Errorf("%v", p)
		}
	}
	f := c.as("alice", "GET", "/status/clustera/partitions?show_hidden=maybe", "").fails(400, "show_hidden")
	if f.ErrorType != "validation" || f.Data == nil || f.Data.Fields[0].Location != "query" || f.Data.Fields[0].Name != "show_hidden" || *f.User != "alice" {
		t.Errorf("%+v", f)
	}
}

func TestReservations(t *testing.T) {
	c := slurm(t)
	reservations := map[string]shape{"reservations": []shape{map[string]shape{
		"name": "string", "nodeList": "string?", "endTime": "int?", "startTime": "int?", "features": "string?", "state": "string",
	}}}
	if v := c.as("alice", "GET", "/status/clustera/reservations", "").answers(200, reservations); len(v["reservations"].([]any)) != 0 {
		t.Errorf("%v", v)
	}
	c.root("scontrol create reservation ReservationName=maint StartTime=now+1hour Duration=60 Nodes=ALL Users=root")
	defer c.root("scontrol delete ReservationName=maint")
	r := element(t, c.as("alice", "GET", "/status/clustera/reservations", "").answers(200, reservations), "reservations", "maint")
	if r["nodeList"] != "localhost" || r["state"] != "inactive" || r["features"] != nil {
		t.Errorf("%v", r)
	}
}

var userInfoShape = map[string]shape{
	"user": map[string]shape{"id": "string", "name": "string"}, "group": map[string]shape{"id": "string", "name": "string"},
	"groups":   []shape{map[string]shape{"id": "string", "name": "string"}},
	"accounts": []shape{map[string]shape{"name": "string", "default": "bool"}},
}

func TestUserInfo(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	v := c.as("alice", "GET", "/status/clustera/userinfo", "").answers(200, userInfoShape)
	if v["user"].(map[string]any)["name"] != "alice" || v["group"].(map[string]any)["name"] != "alice" {
		t.Errorf("%v", v)
	}
	element(t, v, "groups", "physics")
	if element(t, v, "accounts", "staff")["default"] != true || element(t, v, "accounts", "proj")["default"] != false {
		t.Errorf("%v", v)
	}
}

func TestAnUnknownSystemIsUnknownOnEveryRoute(t *testing.T) {
	t.Parallel()
	s := bare(t, nil)
	for _, r := range append(opsOf("nowhere"),
		"GET /status/nowhere/nodes", "GET /status/nowhere/partitions", "GET /status/nowhere/reservations", "GET /status/nowhere/userinfo",
		"POST /compute/nowhere/jobs", "GET /compute/nowhere/jobs", "GET /compute/nowhere/jobs/1", "GET /compute/nowhere/jobs/1/metadata",
		"DELETE /compute/nowhere/jobs/1", "PUT /compute/nowhere/jobs/1/attach",
	) {
		method, path, _ := strings.Cut(r, " ")
		s.as("alice", method, path, "{").fails(404, "System not found")
		s.as("", method, path, "{").fails(401, "Not authenticated")
	}
}
