# Each target also works by hand: what it runs is one line.
GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME  ?= 10s
LINTER    := .cache/bin/golangci-lint
MAX_LINES := 600

.PHONY: help build demo test lint fuzz clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/sallyport, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/sallyport ./cmd/sallyport

demo: build ## run everything on this machine and one command through it
	@tools/need sshd:openssh-server ssh-keygen:openssh-client unshare:util-linux || echo "going on with the embedded SSH server"
	bin/sallyport demo --once

test: ## every test, with the race detector, against the real sshd and identity providers
	@tools/need sshd:openssh-server ssh:openssh-client unshare:util-linux setpriv:util-linux pgrep:procps softhsm2-util:softhsm2 systemd-analyze:systemd gcc:gcc node:nodejs npm:npm bash:bash curl:curl
	$(GO) test -race -timeout 20m ./...
	$(GO) test -timeout 2m -run Thousand ./executor # under the race detector it uses 150 connections

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
