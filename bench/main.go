// Bench measures Sallyport against what it is made of.
//
// It starts a real sshd with 20 users, an identity provider and `sallyport serve`
// as processes of their own, and drives them from this process: raw x/crypto/ssh
// sessions on pooled connections first, then the same commands through HTTP with
// tokens, point after point and round after round, so that whatever else the
// machine does falls on all of them alike. Compare ratios within one run; the
// figures themselves belong to one machine and one moment. docs/performance.md
// explains each of them.
//
// Only loopback addresses are used. The exit code is 0 also when a target is
// missed: machines are shared, and a figure is not a fault.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	opt, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if err := run(ctx, opt, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	Rounds  int           `json:"rounds"`
	Window  time.Duration `json:"window_ns"` // of one point in one round
	Clients []int         `json:"clients"`   // of the commands through HTTP
	Idle    int           `json:"idle"`      // connections of the memory measurement
	Streams int           `json:"streams"`   // downloads of that of files
	Quick   bool          `json:"quick"`

	only    *regexp.Regexp
	json    string
	binary  string
	before  string
	profile string
}

func parse(args []string, out io.Writer) (options, error) {
	var opt options
	var seconds float64
	var only, clients string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(out)
	f.BoolVar(&opt.Quick, "quick", false, "one short round with few clients: shows that everything works, measures nothing")
	f.IntVar(&opt.Rounds, "rounds", 5, "rounds; the table has medians over them")
	f.Float64Var(&seconds, "seconds", 1, "length of one point in one round; 50 clients and more take twice as long")
	f.StringVar(&only, "only", "", "measure only the rows whose name matches this regular expression, such as 'raw|isolated'")
	f.StringVar(&clients, "clients", "1,8,50,500", "clients of the commands through HTTP")
	f.IntVar(&opt.Idle, "idle", 1000, "idle connections whose memory is measured")
	f.IntVar(&opt.Streams, "streams", 200, "downloads of 100 MB at once, while memory is watched")
	f.StringVar(&opt.json, "json", filepath.Join("bench", "out", "latest.json"), "write the results here; empty: nowhere")
	f.StringVar(&opt.binary, "binary", "", "the sallyport binary to measure; empty: build one")
	f.StringVar(&opt.before, "before", "", "another sallyport binary, measured in the same run in rows of its own: what a change brings")
	f.StringVar(&opt.profile, "profile", "", "write CPU profiles of the service, one for each of its rows, into this folder")
	if err := f.Parse(args); err != nil {
		return opt, err
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if opt.Quick {
		quick := map[string]func(){
			"rounds": func() { opt.Rounds = 1 }, "seconds": func() { seconds = 0.1 },
			"clients": func() { clients = "1,8" }, "idle": func() { opt.Idle = 8 },
			"streams": func() { opt.Streams = 4 },
		}
		for name, set := range quick {
			if !given[name] {
				set()
			}
		}
	}
	opt.Window = time.Duration(seconds * float64(time.Second))
	var err error
	if opt.only, err = regexp.Compile(only); err != nil {
		return opt, fmt.Errorf("--only: %w", err)
	}
	for text := range strings.SplitSeq(clients, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxClients {
			return opt, fmt.Errorf("--clients: %q is not a number from 1 to %d", text, maxClients)
		}
		opt.Clients = append(opt.Clients, n)
	}
	switch {
	case f.NArg() > 0:
		return opt, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case opt.Rounds < 1 || opt.Rounds > 100:
		return opt, fmt.Errorf("--rounds: %d is not from 1 to 100", opt.Rounds)
	case opt.Window < 10*time.Millisecond || opt.Window > time.Minute:
		return opt, fmt.Errorf("--seconds: %v is not from 0.01 to 60", seconds)
	case opt.Idle < 0 || opt.Idle > maxIdle:
		return opt, fmt.Errorf("--idle: %d is not from 0 to %d", opt.Idle, maxIdle)
	case opt.Streams < 0 || opt.Streams > maxClients:
		return opt, fmt.Errorf("--streams: %d is not from 0 to %d", opt.Streams, maxClients)
	}
	return opt, nil
}

// run measures and reports: the table to out, progress to progress.
func run(ctx context.Context, opt options, out, progress io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Fprintln(progress, "starting sshd, the identity provider and sallyport")
	s, err := startSite(ctx, dir, opt.binary, opt.before)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	report, err := measure(ctx, s, opt, progress)
	if err != nil {
		return err
	}
	report.Targets = judge(report)
	report.print(out)
	if opt.json == "" {
		return nil
	}
	return report.write(opt.json)
}
