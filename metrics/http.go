package metrics

import "sallyport/httpapi"

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
		return []sample{
			of(inFlight, l.InFlight), of(maxInFlight, l.MaxInFlight), of(callers, l.Callers),
			of(output, l.OutputBytes), of(maxOutput, l.MaxOutputBytes),
		}
	}))
}
