# Each target also works by hand: what it runs is one line.
GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME  ?= 10s
SOAK      ?= 3m
COUNT     ?= 6
BENCHMARKS ?= ./identity ./ca ./store/... ./executor/... ./httpapi
LINTER    := .cache/bin/golangci-lint
MAX_LINES := 600

.PHONY: help build demo test attack soak bench bench-go interop lint fuzz clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/sallyport, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/sallyport ./cmd/sallyport

demo: build ## run everything on this machine and one command through it
	@tools/need sshd:openssh-server ssh-keygen:openssh-client unshare:util-linux || echo "going on with the embedded SSH server"
	bin/sallyport demo --once

test: ## every test, with the race detector, against the real sshd and identity providers
	@tools/need sshd:openssh-server ssh:openssh-client unshare:util-linux setpriv:util-linux pgrep:procps softhsm2-util:softhsm2 systemd-analyze:systemd gcc:gcc node:nodejs npm:npm bash:bash busybox:busybox-static curl:curl prometheus:prometheus promtool:prometheus script:bsdutils nsenter:util-linux slurmctld:slurm-wlm slurmdbd:slurmdbd munged:munge mariadbd:mariadb-server /usr/bin/python3:python3-minimal '/usr/lib/*/faketime/libfaketime.so.1:libfaketime' rsyslogd:rsyslog '/usr/lib/*/rsyslog/lmnsd_ossl.so:rsyslog-openssl' '/usr/lib/*/rsyslog/lmnsd_gtls.so:rsyslog-gnutls'
	$(GO) test -timeout 40m -run ServerStarts ./internal/fgaserver ./internal/s3server ./internal/logreceiver # built once, while nothing else runs
	$(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v /e2e/failure)
	$(GO) test -race -timeout 20m ./e2e/failure # alone: it has a machine's worth of its own
	$(GO) test -timeout 2m -run Thousand ./executor # under the race detector it uses 150 connections
	SALLYPORT_TEST_CREDENTIALS=remote $(GO) test -race -timeout 10m ./executor # certificates from a CA that is another process
	SALLYPORT_TEST_SESSIONS=warm $(GO) test -race -timeout 10m -run TestSSHD ./executor # all commands in warm sessions

attack: ## attack the real binary and a real sshd, a line each: attack, expected, got
	@tools/need sshd:openssh-server unshare:util-linux
	$(GO) run ./e2e/attack $(ARGS)

soak: ## all failures at once, under load and the race detector, for SOAK (make soak SOAK=30m)
	@tools/need sshd:openssh-server unshare:util-linux gcc:gcc /usr/bin/python3:python3-minimal
	SALLYPORT_SOAK=$(SOAK) $(GO) test -count 1 -timeout 5h -v -run TestSoak ./e2e/failure

bench: build ## measure against raw x/crypto/ssh on a real sshd (4 minutes; ARGS="--quick", "--help")
	@tools/need sshd:openssh-server unshare:util-linux /usr/bin/python3:python3-minimal
	$(GO) build -o bin/bench ./bench
	bin/bench --binary bin/sallyport $(ARGS)

# Two files of it, before.txt and after.txt, are compared by
# go run golang.org/x/perf/cmd/benchstat@latest before.txt after.txt
bench-go: ## the Go benchmarks of the hot paths, COUNT times, for benchstat
	@$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) $(BENCHMARKS)

interop: ## drive the service with FirecREST's own clients, from PyPI
	@tools/need python3:python3 curl:curl sshd:openssh-server unshare:util-linux nsenter:util-linux slurmctld:slurm-wlm slurmdbd:slurmdbd munged:munge mariadbd:mariadb-server
	$(GO) test -tags interop -count 1 -timeout 20m ./e2e/pyfirecrest

lint: $(LINTER) ## static checks
	$(GO) mod tidy -diff
	$(LINTER) run ./...
	@find . -name '*.go' -not -path './.cache/*' | xargs wc -l | awk '$$2 != "total" && $$1 > $(MAX_LINES) { print $$2 ": " $$1 " lines, more than $(MAX_LINES)"; bad = 1 } END { exit bad }'

$(LINTER): tools/go.mod tools/go.sum
	@echo "building the linter (about two minutes the first time)"
	$(GO) build -C tools -o ../$(LINTER) github.com/golangci/golangci-lint/v2/cmd/golangci-lint

fuzz: ## fuzz every target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

clean: ## remove what was built
	rm -rf bin .cache
