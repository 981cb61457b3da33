package main

import (
	"context"
	"log/slog"
	"slices"
	"strings"
)

// clientVariables are read by commands, beside those that overrule the configuration.
const clientVariables = "CONFIG URL TOKEN TOKEN_COMMAND TLS_CA DPOP_KEY NODE_DIR NODE_SIGNERS NODE_SSHD NODE_SSHD_CONFIG NODE_AT_LEAST"

const variablePrefix = "SALLYPORT_"

// variableOf is the environment variable that overrules a key outside lists of tables.
func variableOf(path string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// warnOfUnknownVariables names the variables of environ (NAME=value) that look like
// ours and do nothing: most likely a typing error, which in the file would be refused.
// It is no error here, because others set some: Kubernetes, for a service of our name.
func warnOfUnknownVariables(ctx context.Context, log *slog.Logger, environ []string) error {
	sections, err := reference()
	if err != nil {
		return err
	}
	var known []string
	for name := range strings.FieldsSeq(clientVariables) {
		known = append(known, variablePrefix+name)
	}
	for _, s := range sections {
		for _, o := range s.settings {
			if !s.repeated && !s.inRepeated {
				known = append(known, variableOf(o.path))
			}
		}
	}
	for _, pair := range environ {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, variablePrefix) && !slices.Contains(known, name) {
			log.WarnContext(ctx, "an environment variable has no effect: no option is set by it", slog.String("variable", name))
		}
	}
	return nil
}
