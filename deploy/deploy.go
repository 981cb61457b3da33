// Package deploy holds what runs and watches Sallyport elsewhere: the systemd unit
// and the Grafana dashboard.
package deploy

import _ "embed"

// Dashboard is a Grafana dashboard over the metrics of package metrics.
//
//go:embed grafana-dashboard.json
var Dashboard []byte
