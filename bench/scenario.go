package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// A scenario is a kind of row. Its function prepares for a number of clients once,
// before the first round, and returns what each client does and how to clean up;
// a nil op says that the service cannot do this.
type scenario struct {
	name    string
	clients []int
	prepare func(ctx context.Context, s *site, v *service, clients int) (do op, done func(), err error)
	// ofService says that sallyport works for it: its profile is of interest, and so
	// is what another binary does.
	ofService bool
}

// A point is a scenario of a service with a number of clients: one row of the table.
type point struct {
	scenario
	service *service
	count   int
	do      op
	done    func()
	samples []sample
}

// scenarios are the rows. To add one is to add a line here and, unless it is
// another command, a function.
func scenarios(opt options) []scenario {
	raw := []int{1, 2, 4, 8, 16, 32, 50, 500}
	if opt.Quick {
		raw = []int{1, 8}
	}
	for _, n := range opt.Clients {
		if !slices.Contains(raw, n) {
			raw = append(raw, n)
		}
	}
	one, many := []int{1}, []int{64}
	return append([]scenario{
		{name: "raw", clients: raw, prepare: prepareRaw},
		{name: "isolated", clients: opt.Clients, prepare: execute("node"), ofService: true},
		{name: "warm", clients: opt.Clients, prepare: execute("warm"), ofService: true},
		{name: "login raw", clients: one, prepare: prepareRawLogin},
		{name: "login", clients: one, prepare: prepareLogin, ofService: true},
		{name: "certificate", clients: many, prepare: prepareCertificates, ofService: true},
		{name: "certificate in process", clients: many, prepare: prepareAuthority},
		{name: "token cold in process", clients: one, prepare: prepareVerify(-1)},
		{name: "token cached in process", clients: one, prepare: prepareVerify(0)},
		{name: "pool acquire in process", clients: one, prepare: preparePool},
	}, fileScenarios(opt)...)
}

// execute sends the command to a system through HTTP.
func execute(system string) func(context.Context, *site, *service, int) (op, func(), error) {
	return func(ctx context.Context, s *site, v *service, clients int) (op, func(), error) {
		if system == "warm" && !v.warm {
			return nil, nil, nil
		}
		callers := make([]*caller, clients)
		for i := range callers {
			callers[i] = newCaller(v.address, s.tokens[i%users], "/v1/systems/"+system+"/exec",
				fmt.Sprintf(`{"argv": [%q]}`, command), 200, `"exit_code":0,`)
		}
		// All at once, so that every connection stands. An error shows again in the
		// first round.
		var first sync.WaitGroup
		for _, c := range callers {
			first.Go(func() { _ = c.call(ctx) })
		}
		first.Wait()
		return calling(callers)
	}
}

// calling is the op of callers, one for each client.
func calling(callers []*caller) (op, func(), error) {
	done := func() {
		for _, c := range callers {
			c.close()
		}
	}
	return func(ctx context.Context, client int) error { return callers[client].call(ctx) }, done, nil
}
