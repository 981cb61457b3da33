package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sallyport/deploy"
)

// A dashboard is what of Grafana's format matters here.
type dashboard struct {
	Panels []struct {
		Type, Title string
		Targets     []struct{ Expr string }
	}
}

func TestEveryQueryOfTheDashboardHasAnAnswerFromRealMetrics(t *testing.T) {
	t.Parallel()
	var board dashboard
	if err := json.Unmarshal(deploy.Dashboard, &board); err != nil {
		t.Fatal(err)
	}
	server := startPrometheus(t, measured(t))
	eventually(t, "prometheus has scraped twice", func() bool {
		n, err := server.query(t.Context(), "count_over_time(sallyport_build_info[1m]) >= 2")
		return err == nil && n == 1
	})
	// What Grafana puts in.
	variables := strings.NewReplacer("$__rate_interval", "1m", "$system", ".*")
	queries := 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			queries++
			expression := variables.Replace(target.Expr)
			// More than once: a scrape that came too late on a busy machine empties the
			// series for a moment.
			eventually(t, fmt.Sprintf("panel %q has series for %s", panel.Title, expression), func() bool {
				n, err := server.query(t.Context(), expression)
				return err == nil && n > 0
			})
		}
	}
	if queries < 20 {
		t.Errorf("the dashboard has %d queries", queries)
	}
}
