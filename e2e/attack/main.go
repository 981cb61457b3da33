// Command attack runs attacks against the real binary, with a real sshd behind it, and
// prints a line for each: the attack, what must come of it, what came of it. It ends
// with 1 if any line differs. Attacks are bounded in number and time, and go to loopback
// addresses alone.
//
// A topic is a file with one function that returns its attacks; main lists the topics.
// What an attack returns must be the same in each run: "200", "refused", "yes", and
// neither a time nor a rate.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"time"
)

// An attack is one line of the table.
type attack struct {
	// name says what the attacker does, in a few words.
	name string
	// expected is what must come of it.
	expected string
	// run attacks, and returns what came of it. Its services end after it. An error
	// means that the attack could not be made, and fails the line.
	run func(ctx context.Context, s *site) (got string, err error)
}

// topics are all attacks, in the order in which they are run.
func topics() []attack {
	var all []attack
	for _, topic := range []func() []attack{tokens, wrongSettings, strangers, policies, confinement, injection, process, revocations, approvals, bounds, nodes, audit} {
		all = append(all, topic()...)
	}
	return all
}

// attackTime bounds one attack.
const attackTime = 2 * time.Minute

func main() {
	only := flag.String("only", "", "run the attacks whose name matches this regular expression")
	binary := flag.String("binary", "", "attack this binary instead of building one")
	list := flag.Bool("list", false, "list the attacks and what is expected, and run none")
	flag.Parse()
	chosen, err := regexp.Compile(*only)
	if err != nil || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "attack: -only is no regular expression, or there are arguments; see -help")
		os.Exit(2)
	}
	var attacks []attack
	for _, a := range topics() {
		if chosen.MatchString(a.name) {
			attacks = append(attacks, a)
		}
	}
	if *list {
		for _, a := range attacks {
			fmt.Printf("%-66s %s\n", a.name, a.expected)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	failed, err := attackAll(ctx, *binary, attacks)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(1)
	}
	if failed > 0 || len(attacks) == 0 {
		os.Exit(1)
	}
}

// attackAll runs the attacks one after the other and returns how many did not come out
// as expected.
func attackAll(ctx context.Context, binary string, attacks []attack) (failed int, err error) {
	s, err := startSite(ctx, binary)
	if err != nil {
		return 0, err
	}
	defer func() {
		if closeErr := s.close(); err == nil {
			err = closeErr
		}
	}()
	fmt.Printf("%-66s %-26s %s\n", "attack", "expected", "got")
	for _, a := range attacks {
		got := s.attempt(ctx, a)
		mark := ""
		if got != a.expected {
			failed++
			mark = "   <-- differs"
		}
		fmt.Printf("%-66s %-26s %s%s\n", a.name, a.expected, got, mark)
	}
	fmt.Printf("%d passed, %d failed\n", len(attacks)-failed, failed)
	return failed, nil
}

// attempt runs one attack and ends the services that it started.
func (s *site) attempt(ctx context.Context, a attack) string {
	ctx, cancel := context.WithTimeout(ctx, attackTime)
	defer cancel()
	got, err := a.run(ctx, s)
	if err != nil {
		got = strings.ReplaceAll("not made: "+err.Error(), "\n", " | ")
	}
	if err := s.endServices(); err != nil {
		got += strings.ReplaceAll(" and the service did not end well: "+err.Error(), "\n", " | ")
	}
	return got
}
