package metrics

import (
	"sallyport/httpapi"
	"sallyport/httpapi/places"
)

var (
	inFlight    = gauge("http_requests_in_flight", "Requests being answered.")
	maxInFlight = gauge("http_requests_in_flight_limit", "Requests above it get 503.")
	callers     = gauge("http_callers_in_flight", "Callers with a request in flight.")
	output      = gauge("http_output_bytes", "Output of commands that answers hold in memory.")
	maxOutput   = gauge("http_output_bytes_limit", "Output above it is dropped.")
)

// HTTP adds what requests hold.
func (m *Metrics) HTTP(load func() httpapi.Load) {
	m.registry.MustRegister(snapshot(func() []sample {
		l := load()
		all := []sample{
			of(inFlight, l.InFlight), of(maxInFlight, l.MaxInFlight), of(callers, l.Callers),
			of(output, l.OutputBytes), of(maxOutput, l.MaxOutputBytes),
			of(known, l.Places.KnownAddresses),
		}
		for lane, n := range map[string]places.Count{
			"public": l.Places.Public, "nodes": l.Places.Nodes, "followers": l.Places.Followers, "verifying": l.Places.Verifying,
		} {
			all = append(all, anonymous.samples(n, lane)...)
		}
		for listener, n := range l.Places.Connections {
			all = append(all, connections.samples(n, listener)...)
		}
		return all
	}))
}

// A crowd is the metrics of a [places.Count].
type crowd struct{ inUse, limit, refused, evicted *family }

var (
	anonymous = crowd{
		inUse:   gauge("http_anonymous_in_flight", "Requests without a good token being answered, by lane.", "lane"),
		limit:   gauge("http_anonymous_in_flight_limit", "Above it, those go first whose clients keep the service waiting.", "lane"),
		refused: counter("http_anonymous_refused_total", "Requests without a good token for which there was no place.", "lane"),
		evicted: counter("http_anonymous_evicted_total", "Requests that lost their place to another, since their clients kept the service waiting.", "lane"),
	}
	connections = crowd{
		inUse:   gauge("http_connections", "Open connections, by listener.", "listener"),
		limit:   gauge("http_connections_limit", "Above it, connections without a good token go first.", "listener"),
		refused: counter("http_connections_refused_total", "Connections that were closed at once.", "listener"),
		evicted: counter("http_connections_evicted_total", "Connections that lost their place to another one.", "listener"),
	}
	known = gauge("http_known_addresses", "Addresses that have shown a good token within an hour.")
)

func (c crowd) samples(n places.Count, label string) []sample {
	return []sample{of(c.inUse, n.InUse, label), of(c.limit, n.Limit, label), of(c.refused, n.Refused, label), of(c.evicted, n.Evicted, label)}
}
