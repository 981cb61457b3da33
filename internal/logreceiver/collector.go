package logreceiver

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"sallyport/internal/fromsource"
)

// Collector prepares a collector of OpenTelemetry with files in dir. It takes OTLP over
// HTTP with TLS at https://Address/v1/logs.
func Collector(ctx context.Context, dir string) (*Receiver, error) {
	program, err := buildCollector(ctx)
	if err != nil {
		return nil, err
	}
	cert, key, err := certificate(dir)
	if err != nil {
		return nil, err
	}
	address, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	output, config := filepath.Join(dir, "received"), filepath.Join(dir, "collector.yaml")
	text := fmt.Sprintf(`receivers: {otlp: {protocols: {http: {endpoint: %q, tls: {cert_file: %q, key_file: %q}}}}}
exporters: {file: {path: %q, append: true}}
service:
  telemetry: {}
  pipelines: {logs: {receivers: [otlp], exporters: [file]}}
`, address, cert, key, output)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	r := &Receiver{Address: address, CA: cert, output: output, complain: filepath.Join(dir, "collector.log"), lines: bodies}
	r.command = func() *exec.Cmd {
		return exec.CommandContext(context.WithoutCancel(ctx), program, "--config", "file:"+config)
	}
	return r, nil
}

// bodies returns the bodies of the log records in what the file exporter writes: a
// request a line.
func bodies(text []byte) (bodies []string, err error) {
	type request struct {
		ResourceLogs []struct {
			ScopeLogs []struct {
				LogRecords []struct {
					Body struct {
						StringValue string `json:"stringValue"`
					} `json:"body"`
				} `json:"logRecords"`
			} `json:"scopeLogs"`
		} `json:"resourceLogs"`
	}
	for _, line := range whole(text) {
		var r request
		if json.Unmarshal(line, &r) != nil {
			continue // torn by a kill, and written on behind it
		}
		for _, resource := range r.ResourceLogs {
			for _, scope := range resource.ScopeLogs {
				for _, record := range scope.LogRecords {
					bodies = append(bodies, record.Body.StringValue)
				}
			}
		}
	}
	return bodies, nil
}

// buildCollector makes the program of e2e/otelcol when it is missing.
func buildCollector(ctx context.Context) (string, error) {
	root, err := fromsource.Root()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "e2e", "otelcol")
	digest, err := fromsource.Digest(filepath.Join(module, "go.sum"), filepath.Join(module, "main.go"))
	if err != nil {
		return "", err
	}
	program := filepath.Join(root, ".cache", "otelcol-"+digest)
	return program, fromsource.Once(ctx, program, func() error {
		fromsource.Progress("building a collector of OpenTelemetry from e2e/otelcol (a minute or two without a build cache)")
		build := exec.CommandContext(ctx, "go", "build", "-o", program+".new", ".")
		build.Dir = module
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if err := fromsource.Run(build); err != nil {
			return err
		}
		return os.Rename(program+".new", program)
	})
}
