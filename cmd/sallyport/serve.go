package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

const serveLong = `Run the service: the REST API on server.listen, and the admin commands on a
Unix socket in the data folder.

CA and executor can be two processes under two users: --role ca and --role
executor, each with a configuration and a data_dir of its own. The executor does
not start if its user can reach the CA key that its configuration names.

SIGTERM or an interrupt drains: no new commands, running ones finish within
server.drain_timeout, then what is left is ended and its callers are told. A
second signal ends the service at once; commands then go on without it. SIGHUP
does nothing: TLS certificates, known_hosts and key files are read again when they
change, everything else takes a restart.

While it serves, the process can start no program and open no further listener, and
reaches the files alone that its configuration names, /etc and data_dir
(server.sandbox).`

func newServe(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the service", GroupID: "service", Long: serveLong, Args: exactArgs(),
	}
	path := configFlag(cmd, s)
	part := roleAll
	cmd.Flags().Var(&part, "role", `"ca" or "executor" runs that part alone, whatever the configuration enables; "all" what it enables`)
	addressFile := cmd.Flags().String("address-file", "", "write the address of the API here once it answers (for port 0)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, config, err := readConfig(*path, part.getenv(s.getenv))
		if err != nil {
			return err
		}
		if err := part.check(f); err != nil {
			return err
		}
		log := newLogger(s, f.Log)
		if err := warnOfUnknownVariables(cmd.Context(), log, s.environ); err != nil {
			return err
		}
		lockMemory(cmd.Context(), log)
		// Before the key, so that the wrong user is told so.
		if err := errors.Join(checkDataDir(f.DataDir), config.checkFiles(&f)); err != nil {
			return err
		}
		for _, w := range config.warnings {
			log.WarnContext(cmd.Context(), "dangerous setting: "+w.text, slog.String("key", w.key), slog.Int("line", w.line))
		}
		key, err := loadCAKey(s, f)
		if err != nil {
			return err
		}
		d, err := newDaemon(f, key, log)
		if err != nil {
			return err
		}
		confined := func() error {
			return confine(cmd.Context(), f.Server.Sandbox, f.confinement(*path, *addressFile, s.getenv), log)
		}
		return errors.Join(serve(cmd.Context(), d, f, log, *addressFile, confined), d.close())
	}
	return cmd
}

func newLogger(s streams, cfg LogSection) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		panic("bug: " + err.Error()) // checked when the file was read
	}
	opt := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(s.err, opt))
	}
	return slog.New(slog.NewTextHandler(s.err, opt))
}

// serve listens until ctx ends, then drains. It calls confined once every listener is open,
// and serves only after it.
func serve(ctx context.Context, d *daemon, f File, log *slog.Logger, addressFile string, confined func() error) error {
	public, err := listenPublic(ctx, d.api.Bound, f.Server, log)
	if err != nil {
		return err
	}
	admin, err := listenAdmin(ctx, f.Server.AdminSocket)
	if err != nil {
		return errors.Join(err, public.Close())
	}
	publicServer, adminServer := d.api.Server(), d.api.AdminServer()
	servers := []*http.Server{publicServer, adminServer}
	group, ctx := errgroup.WithContext(ctx)
	if f.Metrics.Listen != "" {
		l, err := listenBeside(ctx, d.api.Bound, "metrics.listen", f.Metrics.Listen)
		if err != nil {
			return errors.Join(err, public.Close(), admin.Close())
		}
		server := metricsServer(d.metrics, log)
		servers = append(servers, server)
		group.Go(func() error { return closedIsFine(server.Serve(l)) })
	}
	if f.FirecREST.Enabled && f.FirecREST.Streamer.Listen != "" {
		l, err := listenBeside(ctx, d.api.Bound, "firecrest.streamer.listen", f.FirecREST.Streamer.Listen)
		if err != nil {
			return errors.Join(err, public.Close(), admin.Close())
		}
		server := doorServer(d.door, log)
		servers = append(servers, server)
		group.Go(func() error { return closedIsFine(server.Serve(l)) })
	}
	if err := confined(); err != nil {
		return errors.Join(err, public.Close(), admin.Close())
	}
	group.Go(func() error { return ignoreHangups(ctx, log) })
	group.Go(func() error { return followNodes(ctx, f, d.api, log) })
	group.Go(func() error { return closedIsFine(publicServer.Serve(public)) })
	group.Go(func() error { return closedIsFine(adminServer.Serve(admin)) })
	group.Go(func() error {
		<-ctx.Done()
		return shutdown(context.WithoutCancel(ctx), d, f.Server.DrainTimeout, log, servers...)
	})
	log.Info("serving", slog.String("address", public.Addr().String()), slog.String("admin_socket", f.Server.AdminSocket))
	if addressFile != "" {
		if err := replaceFile(addressFile, []byte(public.Addr().String()+"\n")); err != nil {
			return errors.Join(err, publicServer.Close(), adminServer.Close())
		}
	}
	return group.Wait()
}

// ignoreHangups keeps SIGHUP, which log rotation and habit send to every daemon,
// from ending the service.
func ignoreHangups(ctx context.Context, log *slog.Logger) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-hangups:
			log.Info("SIGHUP is ignored: files are read again when they change, the configuration at a restart")
		case <-ctx.Done():
			return nil
		}
	}
}

// shutdown ends the service in the order that tells every caller the truth: the
// servers take no new connections, the executor no new commands; what runs may
// finish within timeout and is ended then, while its caller can still be told;
// last, what the servers still have to say.
func shutdown(ctx context.Context, d *daemon, timeout time.Duration, log *slog.Logger, servers ...*http.Server) error {
	log.Info("draining", slog.Duration("timeout", timeout))
	d.api.Drain()
	const lastWords = 30 * time.Second // a command that has to be ended has its grace
	ctx, cancel := context.WithTimeout(ctx, timeout+lastWords)
	defer cancel()
	var group errgroup.Group
	for _, s := range servers {
		group.Go(func() error {
			if err := s.Shutdown(ctx); err != nil {
				log.Warn("requests were cut at the end of the drain", slog.String("error", err.Error()))
				return s.Close()
			}
			return nil
		})
	}
	group.Go(func() error {
		err := d.drain(ctx, timeout)
		if errors.Is(err, context.DeadlineExceeded) {
			log.Warn("commands were ended at the end of the drain")
			return nil
		}
		return err
	})
	return group.Wait()
}

func closedIsFine(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// listenPublic opens the listener of the API, with TLS if it is configured.
func listenPublic(ctx context.Context, bound bounding, s ServerSection, log *slog.Logger) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.Listen)
	if err != nil {
		return nil, fmt.Errorf("server.listen: %w", err)
	}
	l = bound("server.listen", l, maxPublicConns(s.MaxConnections), int(s.MaxConnectionsPerAddress))
	if s.TLSCertificate == "" {
		return l, nil
	}
	tlsListener, err := withTLS(l, s, log)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return tlsListener, nil
}

// listenAdmin opens the admin socket. The database's lock has shown that no other
// daemon uses the folder, so a socket that is there is left over.
func listenAdmin(ctx context.Context, path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("server.admin_socket: %q is there and is no socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("server.admin_socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
