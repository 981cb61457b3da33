package main

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sallyport/metrics"
)

// metricsHandler serves m in the text format of Prometheus. It asks nobody who he
// is: it belongs on listeners for administrators.
func metricsHandler(m *metrics.Metrics) http.Handler {
	return promhttp.HandlerFor(m.Gatherer(), promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// metricsServer serves /metrics and nothing else.
func metricsServer(m *metrics.Metrics, log *slog.Logger) *http.Server {
	routes := http.NewServeMux()
	routes.Handle("GET /metrics", metricsHandler(m))
	return &http.Server{
		Handler:           routes,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}
