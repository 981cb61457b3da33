package ship

import (
	"strconv"

	"sallyport/store/audit"
)

// The part of OTLP's ExportLogsServiceRequest that is needed, in the JSON encoding of
// Protocol Buffers: 64-bit integers are strings, bytes of traces hexadecimal.
type (
	logsRequest struct {
		ResourceLogs [1]resourceLogs `json:"resourceLogs"`
	}
	resourceLogs struct {
		Resource  resource     `json:"resource"`
		ScopeLogs [1]scopeLogs `json:"scopeLogs"`
	}
	resource struct {
		Attributes []attribute `json:"attributes"`
	}
	scopeLogs struct {
		Scope      scope       `json:"scope"`
		LogRecords []logRecord `json:"logRecords"`
	}
	scope struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
	}
	logRecord struct {
		Time       string      `json:"timeUnixNano"`
		Observed   string      `json:"observedTimeUnixNano"`
		Severity   int         `json:"severityNumber"`
		Body       value       `json:"body"`
		Attributes []attribute `json:"attributes"`
		TraceID    string      `json:"traceId,omitempty"`
	}
	attribute struct {
		Key   string `json:"key"`
		Value value  `json:"value"`
	}
	value struct {
		String *string `json:"stringValue,omitempty"`
		Int    *string `json:"intValue,omitempty"`
	}
)

// Severity numbers of the logs data model.
const (
	severityInfo = 9
	severityWarn = 13
)

// request is one batch. The body of each record is the line of the log, byte for byte,
// so that the chain can be checked where it arrives.
func (o *otlp) request(lines []audit.Line) logsRequest {
	records := make([]logRecord, 0, len(lines))
	for _, line := range lines {
		k := knownOf(line)
		r := logRecord{
			Time: strconv.FormatInt(line.Time.UnixNano(), 10), Severity: severityInfo, Body: text(string(line.Text)), TraceID: k.Trace,
			Attributes: []attribute{
				{"event.sequence", number(line.Sequence)}, {"event.hash", text(line.Hash)}, {"event.action", text(k.Action)},
			},
		}
		r.Observed = r.Time
		if k.Outcome == string(audit.Failure) {
			r.Severity = severityWarn
		}
		records = append(records, r)
	}
	return logsRequest{[1]resourceLogs{{
		Resource: resource{[]attribute{{"service.name", text("sallyport")}, {"host.name", text(o.cfg.Host)}}},
		ScopeLogs: [1]scopeLogs{{
			Scope: scope{Name: "sallyport/store/audit", Version: o.cfg.Version}, LogRecords: records,
		}},
	}}}
}

func text(s string) value { return value{String: &s} }

func number(n uint64) value {
	s := strconv.FormatUint(n, 10)
	return value{Int: &s}
}
