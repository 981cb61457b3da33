// Package firecrest serves the API of FirecREST v2, so that its clients work
// unchanged: pyfirecrest, the firecrest command, AiiDA, JupyterHub's spawner, the
// web interface. What it has in common with the original, and where it differs and
// why, is listed in docs/firecrest.md.
//
// The guarantee: what a caller sends reaches a login node as an argument of a
// command or as its standard input, never as text of a shell; every input and
// every output is bounded; and an answer holds nothing internal.
//
// The threat is every caller with a good token. The caveat: what the scheduler
// and other programs print on the node goes to the caller whose command it was.
package firecrest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"sallyport/executor"
	"sallyport/httpapi"
	"sallyport/identity"
)

// CompatibilityLevel is the FirecREST version whose behaviour is reproduced, as
// clients read it from the header F7T-AppVersion: from 2.6.0 on pyfirecrest lets
// its users filter jobs by name and time, AiiDA wants 2.2.8, and neither
// understands our own version.
const CompatibilityLevel = "2.6.0"

// A CommandRunner runs commands on systems as their callers, and opens their files; see [executor.Executor].
type CommandRunner interface {
	Run(ctx context.Context, caller identity.Identity, system string, cmd executor.Command) (executor.Result, error)
	System(caller identity.Identity, name string) (executor.SystemInfo, error)
	Files(ctx context.Context, caller identity.Identity, system string) (*executor.Files, error)
}

// Config is what a [Handler] serves.
type Config struct {
	// Commands is required.
	Commands CommandRunner
	// Systems are those of the executor that FirecREST's clients can use; at least
	// one.
	Systems []System
	// Probes, if set, returns the last probe of each login node. They are shown, and
	// decide nothing.
	Probes func(ctx context.Context) []Probe
	// Staging, if set, is where uploads and downloads by jobs go through.
	Staging Staging
	// Streaming, if set, lets files go through this service over a WebSocket.
	Streaming *Streaming
	// MaxBody bounds the body of a call that is read as a whole, in bytes; default
	// 8 MiB, since job scripts come in it.
	MaxBody int64
	// MaxFile bounds what ops/upload and ops/download move and ops/view shows at a
	// time, in bytes; default 5 MiB, as FirecREST's max_ops_file_size.
	MaxFile int64
	// Logger gets what no caller is told; nil discards.
	Logger *slog.Logger
}

// A System is a system of the executor with what FirecREST adds.
type System struct {
	// Name is that of the executor's system. Clients may write it in any case, so
	// two names MUST NOT differ in case alone.
	Name string
	// FileSystems are the folders that file operations may touch. None means that
	// there are no file operations.
	FileSystems []FileSystem
	// Scheduler is one of [Schedulers]; empty means "none".
	Scheduler string
	// What follows is shown by /status/systems and changes nothing.
	SchedulerVersion                               string
	Jump                                           string // host:port
	MaxClients                                     int
	ConnectTimeout, IdleTimeout, KeepaliveInterval time.Duration
}

// A FileSystem is a folder that file operations may touch, with all below it.
type FileSystem struct {
	// Path is absolute and clean.
	Path string `json:"path"`
	// DataType is for people: users, store, archive, apps, scratch or project.
	DataType string `json:"dataType"`
	// DefaultWorkDir marks the file system under which transfer jobs run, in the
	// caller's own folder. At most one has it.
	DefaultWorkDir bool `json:"defaultWorkDir"`
}

// DataTypes are the values of [FileSystem.DataType].
func DataTypes() []string {
	return []string{"users", "store", "archive", "apps", "scratch", "project"}
}

// A Handler serves /status, /filesystem and /compute, mounted in an
// [httpapi.API].
type Handler struct {
	cfg     Config
	log     *slog.Logger
	systems map[string]*system // by name in lower case
	names   []string           // keys of systems, in the order of the configuration
	routes  *segment
	streams *streams
}

// A system is a System at work.
type system struct {
	System
	batch     batch // nil if there is none
	health    health
	submitted *submissions
	zones     *zones
}

// New checks cfg and reports all that is wrong with it at once.
func New(cfg Config) (*Handler, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("firecrest: %w", err)
	}
	cfg.MaxBody = cmp.Or(cfg.MaxBody, 8<<20)
	cfg.MaxFile = cmp.Or(cfg.MaxFile, 5<<20)
	h := &Handler{
		cfg: cfg, log: cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		systems: make(map[string]*system), routes: newSegment(), streams: noStreams(),
	}
	for _, s := range cfg.Systems {
		name := strings.ToLower(s.Name)
		h.systems[name] = &system{System: s, batch: batchOf(s.Scheduler), submitted: newSubmissions(), zones: newZones()}
		h.names = append(h.names, name)
	}
	for _, op := range operations() {
		h.routes.add(op)
	}
	return h, nil
}

func (c Config) check() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Commands == nil {
		refuse("commands: a runner is required")
	}
	if len(c.Systems) == 0 {
		refuse("systems: at least one is required")
	}
	if c.MaxBody < 0 || c.MaxFile < 0 {
		refuse("max body %d or max file %d is negative", c.MaxBody, c.MaxFile)
	}
	seen := map[string]bool{}
	for _, s := range c.Systems {
		if seen[strings.ToLower(s.Name)] {
			refuse("system %q: another one has this name, in another case", s.Name)
		}
		seen[strings.ToLower(s.Name)] = true
		if err := s.check(); err != nil {
			refuse("system %q: %w", s.Name, err)
		}
	}
	return errors.Join(errs...)
}

func (s System) check() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	// "/status/systems" and "/status/liveness" would hide such a system.
	if lower := strings.ToLower(s.Name); s.Name == "" || lower == "systems" || lower == "liveness" {
		refuse("the name is empty or that of a call")
	}
	if s.Scheduler != "" && !slices.Contains(Schedulers(), s.Scheduler) {
		refuse("scheduler %q is none of %s", s.Scheduler, strings.Join(Schedulers(), ", "))
	}
	defaults := 0
	for _, f := range s.FileSystems {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
			refuse("file system %q is not an absolute, clean path", f.Path)
		}
		if !slices.Contains(DataTypes(), f.DataType) {
			refuse("file system %q: data type %q is none of %s", f.Path, f.DataType, strings.Join(DataTypes(), ", "))
		}
		if f.DefaultWorkDir {
			defaults++
		}
	}
	if defaults > 1 {
		refuse("more than one file system is the default work folder")
	}
	return errors.Join(errs...)
}

// Prefixes implements [httpapi.Mounted].
func (h *Handler) Prefixes() []string {
	return []string{"/status", "/filesystem", "/compute", "/streams"}
}

// Find implements [httpapi.Mounted]. The path is taken in any case, and with or
// without a slash at its end: FirecREST redirects to the one form that it likes,
// which its own client does not follow.
func (h *Handler) Find(r *http.Request) httpapi.Call {
	found, vars := h.routes.find(segments(r.URL.EscapedPath()))
	if found == nil || len(found.operations) == 0 {
		return httpapi.Call{Route: "none", Public: true, Serve: func(http.ResponseWriter, *http.Request, identity.Identity) error {
			return errNotFound
		}}
	}
	method := r.Method
	if method == http.MethodHead { // net/http sends no body
		method = http.MethodGet
	}
	op, ok := found.operations[method]
	if !ok {
		return httpapi.Call{Route: found.template, Public: true, Serve: func(w http.ResponseWriter, _ *http.Request, _ identity.Identity) error {
			w.Header().Set("Allow", found.allow())
			return errMethod
		}}
	}
	return httpapi.Call{Route: found.template, Operation: op.name, System: h.nameOf(vars["system"]), Public: op.public, Command: op.needs >= needsCommand, Detailed: op.detailed(), Serve: func(w http.ResponseWriter, r *http.Request, caller identity.Identity) error {
		setHeaders(w, r)
		return h.serve(op, &call{handler: h, w: w, r: r, caller: caller, vars: vars})
	}}
}

// nameOf is a system's name as it is configured, or the unknown name as it stands.
func (h *Handler) nameOf(system string) string {
	if s := h.systems[system]; s != nil {
		return s.Name
	}
	return system
}

// serve finds the system first: everything else is asked in terms of it.
func (h *Handler) serve(op operation, c *call) error {
	defer c.release()
	if name, ok := c.vars["system"]; ok {
		c.system = h.systems[name]
		if c.system == nil {
			return errNoSystem
		}
		// What the caller may not use does not exist for him.
		if _, err := h.cfg.Commands.System(c.caller, c.system.Name); err != nil {
			return err
		}
	}
	return op.serve(c)
}
