package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const topLong = `Watch a running service: requests, commands, connections, queues and limits of
each system, anew at every interval. Rates are those since the last look. On a
terminal it redraws until q or Ctrl-C; elsewhere, or with --once, it prints one
screen and ends.`

type topOptions struct {
	interval time.Duration
	once     bool
}

func newTop(s streams) *cobra.Command {
	var opt topOptions
	cmd := &cobra.Command{Use: "top", Short: "Watch systems, queues, limits and latency live", GroupID: "admin", Long: topLong, Args: exactArgs()}
	config := configFlag(cmd, s)
	form := outputFlag(cmd)
	cmd.Flags().DurationVar(&opt.interval, "interval", 2*time.Second, "time between two looks, from 200ms to 1h")
	cmd.Flags().BoolVar(&opt.once, "once", false, "print one screen and end")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if opt.interval < 200*time.Millisecond || opt.interval > time.Hour {
			return usageError{fmt.Errorf("--interval %s is not from 200ms to 1h", opt.interval)}
		}
		f, err := loadConfig(*config, s.getenv)
		if err != nil {
			return err
		}
		w := watcher{client: adminClient(f), interval: opt.interval}
		if *form == "json" {
			screen, err := w.next(cmd.Context())
			if err != nil {
				return err
			}
			return printJSON(s.out, screen)
		}
		screen, terminal := s.out.(*os.File)
		if opt.once || !terminal || !term.IsTerminal(int(screen.Fd())) {
			return w.print(cmd.Context(), s.out)
		}
		return w.live(cmd.Context(), s.in, screen)
	}
	return cmd
}

// A watcher looks at a service again and again.
type watcher struct {
	client   *client
	interval time.Duration
	last     reading
}

// topStatus is what the service says of itself beside its metrics.
type topStatus struct {
	Version       string `json:"version"`
	UptimeSeconds int64  `json:"uptime_seconds"`
	Ready         bool   `json:"ready"`
	Draining      bool   `json:"draining"`
}

// next waits for an interval, unless it is the first look of several, and says what
// happened in it.
func (w *watcher) next(ctx context.Context) (topScreen, error) {
	if w.last.at.IsZero() {
		var err error
		if w.last, err = readMetrics(ctx, w.client); err != nil {
			return topScreen{}, err
		}
	}
	timer := time.NewTimer(w.interval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return topScreen{}, ctx.Err()
	}
	now, err := readMetrics(ctx, w.client)
	if err != nil {
		return topScreen{}, err
	}
	var status topStatus
	if err := w.client.call(ctx, http.MethodGet, "/v1/admin/status", nil, &status); err != nil {
		return topScreen{}, err
	}
	screen := screenOf(span{w.last, now}, status)
	w.last = now
	return screen, nil
}

func (w *watcher) print(ctx context.Context, out io.Writer) error {
	screen, err := w.next(ctx)
	if err != nil {
		return err
	}
	return screen.write(out)
}

const (
	// The control sequences of xterm and its kin: an own screen without cursor, and
	// back.
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// live redraws until the user has seen enough. The terminal is left as it was.
func (w *watcher) live(ctx context.Context, in io.Reader, screen *os.File) (err error) {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	if keyboard, ok := in.(*os.File); ok && term.IsTerminal(int(keyboard.Fd())) {
		state, err := term.MakeRaw(int(keyboard.Fd()))
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		defer func() { _ = term.Restore(int(keyboard.Fd()), state) }()
		go quitOnKey(keyboard, quit) // ends with the process: nobody can interrupt a Read of a terminal
	}
	if _, err := io.WriteString(screen, enterScreen+toTop+"looking …"); err != nil {
		return err
	}
	defer func() {
		_, failed := io.WriteString(screen, leaveScreen)
		err = errors.Join(err, failed)
	}()
	for {
		var page strings.Builder
		switch err := w.print(ctx, &page); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if _, err := io.WriteString(screen, fit(page.String(), screen)); err != nil {
			return err
		}
	}
}

// fit makes a page fit the terminal and cover what stood there before. A raw
// terminal needs carriage returns.
func fit(page string, screen *os.File) string {
	width, height, err := term.GetSize(int(screen.Fd()))
	if err != nil || width < 1 || height < 1 {
		width, height = 80, 24
	}
	var b strings.Builder
	b.WriteString(toTop)
	lines := strings.Split(strings.TrimRight(page, "\n"), "\n")
	for i, line := range lines[:min(len(lines), height)] {
		if i > 0 {
			b.WriteString("\r\n")
		}
		if runes := []rune(line); len(runes) > width {
			line = string(runes[:width])
		}
		b.WriteString(line + clearLine)
	}
	b.WriteString(clearBelow)
	return b.String()
}

func quitOnKey(keyboard io.Reader, quit func()) {
	defer quit()
	const interrupt = 3 // Ctrl-C, which sends no signal from a raw terminal
	key := make([]byte, 1)
	for {
		if _, err := keyboard.Read(key); err != nil || key[0] == 'q' || key[0] == 'Q' || key[0] == interrupt {
			return
		}
	}
}
