package firecrest

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport/executor"
	"sallyport/httpapi"
	"sallyport/httpapi/firecrest/scheduler"
)

// statusOperations are the calls under /status.
func statusOperations() []operation {
	return []operation{
		{method: http.MethodGet, path: "/status/systems", name: "status.systems", serve: systems},
		{method: http.MethodGet, path: "/status/liveness", public: true, serve: liveness},
		{method: http.MethodGet, path: "/status/{system}/nodes", name: "status.nodes", needs: needsCommand, serve: nodes},
		{method: http.MethodGet, path: "/status/{system}/partitions", name: "status.partitions", needs: needsCommand, serve: partitions},
		{method: http.MethodGet, path: "/status/{system}/reservations", name: "status.reservations", needs: needsCommand, serve: reservations},
		{method: http.MethodGet, path: "/status/{system}/userinfo", name: "status.userinfo", needs: needsCommand, serve: userInfo},
	}
}

// livenessAnswer is what a container's liveness script reads: it fails when
// lastUpdate, in seconds, exceeds 900. Here no check can hang, since calls are the
// checks: a service that answers is alive.
type livenessAnswer struct {
	HealthcheckRuns map[string]time.Time `json:"healthcheckRuns"`
	LastUpdate      int64                `json:"lastUpdate"`
}

// liveness is GET /status/liveness/.
func liveness(c *call) error {
	answer, probes := livenessAnswer{HealthcheckRuns: map[string]time.Time{}}, c.handler.probes(c.r.Context())
	for _, name := range c.handler.names {
		s := c.handler.systems[name]
		if _, last := s.health.snapshot(probes[s.Name]); last != nil {
			answer.HealthcheckRuns[name] = *last
		}
	}
	return c.answer(http.StatusOK, answer)
}

// systemView is a system as /status/systems shows it. Some keys of dataOperation
// are in snake_case, and clients read them so.
type systemView struct {
	Name            string        `json:"name"`
	SSH             sshView       `json:"ssh"`
	Scheduler       schedulerView `json:"scheduler"`
	ServicesHealth  []check       `json:"servicesHealth"`
	Probing         *struct{}     `json:"probing"`
	LastHealthCheck *time.Time    `json:"lastHealthCheck"`
	FileSystems     []FileSystem  `json:"fileSystems"`
	DataOperation   dataView      `json:"dataOperation"`
}

type sshView struct {
	Host       string      `json:"host"`
	Port       int         `json:"port"`
	ProxyHost  *string     `json:"proxyHost"`
	ProxyPort  *int        `json:"proxyPort"`
	MaxClients int         `json:"maxClients"`
	Timeout    timeoutView `json:"timeout"`
}

type timeoutView struct {
	Connection       int64 `json:"connection"`
	Login            int64 `json:"login"`
	CommandExecution int64 `json:"commandExecution"`
	IdleTimeout      int64 `json:"idleTimeout"`
	KeepAlive        int64 `json:"keepAlive"`
}

type schedulerView struct {
	Type           string  `json:"type"`
	ConnectionMode string  `json:"connectionMode"`
	Version        *string `json:"version"`
	APIURL         *string `json:"apiUrl"`
	APIVersion     *string `json:"apiVersion"`
	Timeout        int64   `json:"timeout"`
}

type dataView struct {
	Directives []string `json:"datatransfer_jobs_directives"`
	MaxFile    int64    `json:"max_ops_file_size"`
	// DataTransfer is a storageView, a streamerView, or nil.
	DataTransfer any `json:"data_transfer"`
}

// A storageView is the storage for transfers. What is secret, or none of a client's
// business, is ten asterisks, as FirecREST has it.
type storageView struct {
	ServiceType     string        `json:"serviceType"`
	Name            string        `json:"name"`
	PrivateURL      string        `json:"privateUrl"`
	PublicURL       string        `json:"publicUrl"`
	AccessKeyID     string        `json:"accessKeyId"`
	SecretAccessKey string        `json:"secretAccessKey"`
	Region          string        `json:"region"`
	TTL             int64         `json:"ttl"`
	Tenant          *string       `json:"tenant"`
	Multipart       multipartView `json:"multipart"`
}

type multipartView struct {
	UseSplit     bool   `json:"use_split"`
	MaxPartSize  int64  `json:"max_part_size"`
	ParallelRuns int    `json:"parallel_runs"`
	TmpFolder    string `json:"tmp_folder"`
}

// A streamerView is how streams are reached.
type streamerView struct {
	ServiceType  string   `json:"serviceType"`
	PyPIIndexURL *string  `json:"pypiIndexUrl"`
	Host         *string  `json:"host"`
	Ports        [2]int   `json:"portRange"`
	Hosts        []string `json:"publicIps"`
	Wait         int64    `json:"waitTimeout"` // seconds
	MaxUpload    int64    `json:"inboundTransferLimit"`
}

// transferService is the way of large files that is shown: storage, if there are both.
func (h *Handler) transferService() any {
	if h.cfg.Staging == nil {
		if s := h.cfg.Streaming; s != nil {
			return streamerView{ServiceType: "streamer", Ports: [2]int{s.Port, s.Port}, Hosts: s.Hosts, Wait: seconds(s.Wait), MaxUpload: s.MaxUpload}
		}
		return nil
	}
	const hidden = "**********"
	d := h.cfg.Staging.Describe()
	return storageView{
		ServiceType: "s3", Name: "s3-storage", PrivateURL: hidden, PublicURL: d.PublicURL, AccessKeyID: hidden, SecretAccessKey: hidden,
		Region: d.Region, TTL: seconds(d.Lifetime), Multipart: multipartView{MaxPartSize: d.PartSize, ParallelRuns: 1},
	}
}

// systems is GET /status/systems: those that the caller may use, and the policy lets them see.
func systems(c *call) error {
	views, probes := []systemView{}, c.handler.probes(c.r.Context())
	for _, name := range c.handler.names {
		s := c.handler.systems[name]
		info, err := c.handler.cfg.Commands.System(c.caller, s.Name)
		if err != nil {
			continue
		}
		listed, err := httpapi.Listed(c.r.Context(), s.Name)
		if err != nil {
			return err
		}
		if listed {
			views = append(views, c.handler.view(s, info, probes[s.Name]))
		}
	}
	return c.answer(http.StatusOK, struct {
		Systems []systemView `json:"systems"`
	}{views})
}

// probes are the last ones of each system.
func (h *Handler) probes(ctx context.Context) map[string][]Probe {
	bySystem := map[string][]Probe{}
	if h.cfg.Probes != nil {
		for _, p := range h.cfg.Probes(ctx) {
			bySystem[p.System] = append(bySystem[p.System], p)
		}
	}
	return bySystem
}

func (h *Handler) view(s *system, info executor.SystemInfo, probes []Probe) systemView {
	v := systemView{
		Name: strings.ToLower(s.Name),
		SSH: sshView{MaxClients: s.MaxClients, Timeout: timeoutView{
			Connection: seconds(s.ConnectTimeout), Login: seconds(s.ConnectTimeout), CommandExecution: seconds(info.DefaultTimeout),
			IdleTimeout: seconds(s.IdleTimeout), KeepAlive: seconds(s.KeepaliveInterval),
		}},
		Scheduler: schedulerView{
			Type: cmp.Or(s.Scheduler, "none"), ConnectionMode: "ssh", Version: optional(s.SchedulerVersion), Timeout: seconds(info.DefaultTimeout),
		},
		FileSystems:   append([]FileSystem{}, s.FileSystems...),
		DataOperation: dataView{Directives: []string{}, MaxFile: h.cfg.MaxFile, DataTransfer: h.transferService()},
	}
	if len(info.Nodes) > 0 {
		v.SSH.Host, v.SSH.Port = hostPort(info.Nodes[0])
	}
	if s.Jump != "" {
		host, port := hostPort(s.Jump)
		v.SSH.ProxyHost, v.SSH.ProxyPort = &host, &port
	}
	v.ServicesHealth, v.LastHealthCheck = s.health.snapshot(probes)
	return v
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// hostPort splits an address of the configuration.
func hostPort(address string) (string, int) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address, 22
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		n = 22
	}
	return host, n
}

// nodes is GET /status/{system}/nodes.
func nodes(c *call) error {
	batch, err := c.scheduler()
	if err != nil {
		return err
	}
	list, err := batch.Nodes(c.r.Context(), c.schedulerRun)
	if err != nil {
		return c.schedulerFailure(err)
	}
	return c.answer(http.StatusOK, struct {
		Nodes []scheduler.Node `json:"nodes"`
	}{list})
}

// partitions is GET /status/{system}/partitions.
func partitions(c *call) error {
	batch, err := c.scheduler()
	if err != nil {
		return err
	}
	query := c.query()
	hidden := query.flag("show_hidden", false)
	if err := query.finish(); err != nil {
		return err
	}
	all, err := batch.Partitions(c.r.Context(), c.schedulerRun)
	if err != nil {
		return c.schedulerFailure(err)
	}
	list := []scheduler.Partition{}
	for _, p := range all {
		if hidden || !p.Hidden {
			list = append(list, p)
		}
	}
	return c.answer(http.StatusOK, struct {
		Partitions []scheduler.Partition `json:"partitions"`
	}{list})
}

// reservations is GET /status/{system}/reservations.
func reservations(c *call) error {
	batch, err := c.scheduler()
	if err != nil {
		return err
	}
	list, err := batch.Reservations(c.r.Context(), c.schedulerRun)
	if err != nil {
		return c.schedulerFailure(err)
	}
	return c.answer(http.StatusOK, struct {
		Reservations []scheduler.Reservation `json:"reservations"`
	}{list})
}

// named is a user or a group; ids are texts.
type named struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type userInfoAnswer struct {
	User     named               `json:"user"`
	Group    named               `json:"group"`
	Groups   []named             `json:"groups"`
	Accounts []scheduler.Account `json:"accounts"` // null if nobody knows
}

// userInfo is GET /status/{system}/userinfo.
func userInfo(c *call) error {
	var accounts []scheduler.Account
	var noAccounts error
	var wait sync.WaitGroup
	if c.system.batch != nil {
		wait.Go(func() {
			accounts, noAccounts = c.system.batch.Accounts(c.r.Context(), c.schedulerRun, c.caller.Login())
		})
	}
	result, err := c.run(c.r.Context(), executor.Command{Argv: []string{"id"}})
	wait.Wait()
	if err != nil {
		return err
	}
	if noAccounts != nil {
		return noAccounts
	}
	answer, err := parseID(result)
	if err != nil {
		return err
	}
	answer.Accounts = accounts
	return c.answer(http.StatusOK, answer)
}

var (
	idLine = regexp.MustCompile(`(?m)^uid=(\S.*?) gid=(\S.*?) groups=(\S.*?)(?: context=\S+)?$`)
	idName = regexp.MustCompile(`([0-9]+)(?:\(([^)]*)\))?`)
)

// parseID reads id(1), and leaves aside what a login script prints.
func parseID(r executor.Result) (userInfoAnswer, error) {
	line := idLine.FindSubmatch(r.Stdout)
	if line == nil {
		return userInfoAnswer{}, remoteFailure(r)
	}
	var lists [3][]named
	for i := range lists {
		for _, m := range idName.FindAllSubmatch(line[i+1], -1) {
			n := named{ID: string(m[1]), Name: string(m[2])}
			if n.Name == "" {
				n.Name = n.ID
			}
			lists[i] = append(lists[i], n)
		}
	}
	if len(lists[0]) == 0 || len(lists[1]) == 0 {
		return userInfoAnswer{}, remoteFailure(r)
	}
	return userInfoAnswer{User: lists[0][0], Group: lists[1][0], Groups: lists[2]}, nil
}

// remoteFailure is a command that ended as it should not, in FirecREST's words.
func remoteFailure(r executor.Result) *failure {
	return &failure{status: http.StatusInternalServerError, code: "command_failed", message: remoteText(r)}
}

// remoteText has the phrases by which clients know what happened.
func remoteText(r executor.Result) string {
	text := fmt.Sprintf("Remote process failed with exit status:%d", r.ExitCode)
	const most = 4 << 10
	stderr := strings.TrimSpace(string(r.Stderr))
	if stderr = strings.ToValidUTF8(stderr[:min(len(stderr), most)], "\uFFFD"); stderr != "" {
		text += " and error message:" + stderr
	}
	return text
}
