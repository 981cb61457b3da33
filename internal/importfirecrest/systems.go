package importfirecrest

import (
	"fmt"
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A shared setting is one that FirecREST has for each cluster and we have for all.
type shared struct {
	value int64
	from  string
}

func (s shared) duration() time.Duration { return time.Duration(s.value) * time.Second }

// take keeps the greater or, with least, the smaller value, and says so when they differ.
func (s *shared) take(in *section, key string, value int64, least bool, ours string) {
	switch {
	case value == 0:
	case s.value == 0:
		s.value, s.from = value, in.name(key)
	case s.value != value:
		keep := max(s.value, value)
		if least {
			keep = min(s.value, value)
		}
		in.note(key, "differs from %s, and %s is for all systems: set to %d", s.from, ours, keep)
		s.value = keep
	}
}

// A system is a cluster.
type system struct {
	name, jump         string
	nodes              []string
	connect, command   time.Duration
	scheduler, version string
	paths              []fileSystem
}

type fileSystem struct {
	path, dataType string
	workDir        bool
}

// clusters reads them from the file, or from the folder that it names.
func (c *conversion) clusters(top *section) error {
	if folder, ok := strings.CutPrefix(scalar(top, "clusters"), "path:"); ok {
		top.taken["clusters"] = true
		if c.read == nil {
			return fmt.Errorf("clusters: they stand in the folder %q, which cannot be read here", folder)
		}
		files, err := c.read(folder)
		if err != nil {
			return fmt.Errorf("clusters: %w", err)
		}
		for i, file := range files {
			node, err := parse(file.Text)
			if err != nil {
				return fmt.Errorf("clusters: %q: %w", file.Name, err)
			}
			c.cluster(newSection(&c.notes, oneLine(file.Name), fmt.Sprintf("clusters[%d]", i), node))
		}
		return nil
	}
	for _, in := range top.sections("clusters") {
		c.cluster(in)
	}
	return nil
}

// scalar looks at a text without taking it.
func scalar(s *section, key string) string {
	if n := s.values[key]; n != nil && len(n.Content) == 0 {
		return n.Value
	}
	return ""
}

var (
	systemName = regexp.MustCompile(`\A[a-z0-9][a-z0-9._-]{0,62}\z`)
	strange    = regexp.MustCompile(`[^a-z0-9._-]+`)
	hostName   = regexp.MustCompile(`\A[A-Za-z0-9_][A-Za-z0-9_.-]*\z|\A[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?\z`)
)

func (c *conversion) cluster(in *section) {
	s := &system{name: c.systemName(in)}
	c.ssh(s, in.section("ssh"))
	c.scheduler(s, in.section("scheduler"))
	for _, fs := range in.sections("file_systems") {
		s.fileSystem(fs)
	}
	in.drop("service_account", "nodes are seen by the traffic of users, and no account is needed for that; its secret can be revoked")
	in.drop("probing", "health comes from real traffic, so no probe can block users; ca.rotation.probe_login has logins probed")
	in.drop("services_health", "it is no setting")
	data := in.section("data_operation")
	c.fileSize.take(data, "max_ops_file_size", data.number("max_ops_file_size", 1024, 1<<34), false, "firecrest.max_ops_file_size")
	data.drop("datatransfer_jobs_directives", "transfer jobs have none; a default partition or account of the user serves them")
	c.transfers(data)
	data.rest()
	in.drop("datatransfer_jobs_directives", "transfer jobs have none; a default partition or account of the user serves them")
	in.rest()
	c.systems = append(c.systems, s)
}

// fileSystem takes one that our configuration can have.
func (s *system) fileSystem(in *section) {
	fs := fileSystem{path: path.Clean(in.text("path")), dataType: strings.ToLower(in.text("data_type")), workDir: in.flag("default_work_dir")}
	in.rest()
	if !path.IsAbs(fs.path) {
		in.note("path", "is no absolute path: the file system was left out")
		return
	}
	if slices.ContainsFunc(s.paths, func(other fileSystem) bool { return other.path == fs.path }) {
		in.note("path", "stands twice: this file system was left out")
		return
	}
	if fs.dataType != "" && !slices.Contains(dataTypes(), fs.dataType) {
		in.note("data_type", "is none of %s: left out", strings.Join(dataTypes(), ", "))
		fs.dataType = ""
	}
	if fs.workDir && slices.ContainsFunc(s.paths, func(other fileSystem) bool { return other.workDir }) {
		in.note("default_work_dir", "may be true for one file system only: it was not set for this one")
		fs.workDir = false
	}
	s.paths = append(s.paths, fs)
}

func dataTypes() []string { return []string{"users", "store", "archive", "apps", "scratch", "project"} }

// systemName makes a name of ours. Clients of FirecREST's API may write it in any case.
func (c *conversion) systemName(in *section) string {
	given := in.text("name")
	name := strings.Trim(strange.ReplaceAllString(strings.ToLower(given), "-"), "-._")
	name = name[:min(len(name), 63)]
	if !systemName.MatchString(name) || name == "systems" || name == "liveness" {
		name = fmt.Sprintf("system%d", len(c.systems)+1)
	}
	if name != strings.ToLower(given) {
		in.note("name", "is %q here: names have a-z, 0-9, '.', '_' and '-'; clients have to use that", name)
	}
	for slices.ContainsFunc(c.systems, func(s *system) bool { return s.name == name }) {
		name += "2"
		in.note("name", "stands twice: this one is %q here", name)
	}
	return name
}

func (c *conversion) ssh(s *system, in *section) {
	host := in.text("host")
	if !hostName.MatchString(host) {
		in.note("host", "is missing, or no name or address of a host: set systems.nodes")
		host = "login.example.org"
	}
	s.nodes = []string{address(host, in.number("port", 1, 65535))}
	if proxy := in.text("proxy_host"); proxy != "" && !hostName.MatchString(proxy) {
		in.note("proxy_host", "is no name or address of a host: set systems.jump")
	} else if proxy != "" {
		s.jump = address(proxy, in.number("proxy_port", 1, 65535))
		in.note("proxy_host", "the jump host must trust the CA too, and its certificates need permit-port-forwarding")
	}
	in.taken["proxy_port"] = true
	in.note("host", "FirecREST accepts any host key, and Sallyport does not: put %s into known_hosts, checked: ssh-keyscan -p %s %s",
		"the host keys of "+strings.Join(append(slices.Clone(s.nodes), nonEmpty(s.jump)...), " and "), port(s.nodes[0]), oneLine(host))
	c.connections.take(in, "max_clients", in.number("max_clients", 1, 100_000), false, "executor.max_connections")
	timeout := in.section("timeout")
	s.connect = time.Duration(timeout.number("connection", 1, 60)+timeout.number("login", 1, 60)) * time.Second
	s.command = time.Duration(timeout.number("command_execution", 1, 600)) * time.Second
	c.idle.take(timeout, "idle_timeout", timeout.number("idle_timeout", 1, 86_400), false, "executor.idle_timeout")
	c.keepalive.take(timeout, "keep_alive", timeout.number("keep_alive", 1, 600), true, "executor.keepalive_interval")
	timeout.rest()
	in.rest()
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func address(host string, port int64) string {
	if port == 0 {
		port = 22
	}
	return net.JoinHostPort(host, strconv.FormatInt(port, 10))
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

func (c *conversion) scheduler(s *system, in *section) {
	s.scheduler, s.version = in.text("type"), in.text("version")
	if s.scheduler != "" && s.scheduler != "slurm" && s.scheduler != "pbs" {
		in.note("type", "%q is not known here: set to \"none\"", s.scheduler)
		s.scheduler = "none"
	}
	if mode := in.text("connection_mode"); mode != "" && mode != "ssh" {
		in.note("connection_mode", "%q has no counterpart: the scheduler's commands are run over SSH, so login nodes must have them", mode)
	}
	const rest = "slurmrestd is not used; it may be switched off if nothing else uses it"
	in.drop("api_url", rest)
	in.drop("api_version", rest)
	in.drop("timeout", "a scheduler's command has systems.default_timeout")
	in.rest()
}

// writeSystems writes all of them.
func (c *conversion) writeSystems() {
	for _, s := range c.systems {
		c.out.table("[[systems]]")
		c.out.set("name", s.name)
		c.out.set("nodes", s.nodes)
		c.out.set("jump", s.jump)
		c.out.set("known_hosts", []string{"known_hosts"})
		c.out.set("connect_timeout", s.connect)
		c.out.set("default_timeout", s.command)
		c.out.table("[systems.firecrest]")
		c.out.set("scheduler", s.scheduler)
		c.out.set("scheduler_version", s.version)
		for _, fs := range s.paths {
			c.out.table("[[systems.firecrest.file_systems]]")
			c.out.set("path", fs.path)
			c.out.set("data_type", fs.dataType)
			c.out.set("default_work_dir", fs.workDir)
		}
	}
}
