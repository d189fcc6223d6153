# walrelay: build, test, demo. `make help` lists the targets.

GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -s -w -X main.version=$(VERSION)
# Servers that the tests run against besides the newest installed one.
PG_CACHE    ?= /var/tmp/walrelay-pg
GOLANGCI    := $(GO) run -modfile=tools/go.mod github.com/golangci/golangci-lint/v2/cmd/golangci-lint
POSTGRES_URL ?=
# More at a time than there are processors: tests mostly wait.
PARALLEL := -parallel 8
PACKAGES := -p 4 -parallel 6

.PHONY: help build test test-all test-unit test-e2e test-examples test-majors test-chaos test-deploy test-console lint vet fuzz chaos bench demo clean

# How long each fuzz target runs.
FUZZTIME ?= 5s

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

build: ## build bin/walrelay (TAGS=servers: with a nats-server, for demo and private benchmarks)
	CGO_ENABLED=0 $(GO) build $(if $(TAGS),-tags $(TAGS)) -trimpath -ldflags '$(LDFLAGS)' -o bin/walrelay ./cmd/walrelay

test: ## vet, lint, tests with the race detector, end-to-end tests against the installed Postgres
	scripts/ensure-postgres.sh
	$(MAKE) vet lint test-unit test-e2e

test-all: ## what CI runs besides: alerts, the console in a browser, Postgres 14 and 18, a short chaos run with its controls, fuzz tests
	scripts/ensure-postgres.sh
	scripts/ensure-promtool.sh
	scripts/ensure-browser.sh
	$(MAKE) -j2 --output-sync test-deploy test-console # they wait most of the time
	$(MAKE) test-majors test-chaos test-examples fuzz

test-unit: ## tests of the packages, with the race detector
	$(GO) test -race -timeout 5m $(PACKAGES) $$($(GO) list ./... | grep -v /internal/e2e)

test-e2e: ## tests of the binary against the installed Postgres
	$(GO) test -count 1 -timeout 10m $(PARALLEL) ./internal/e2e

test-examples: ## install what the programs in examples/ need, and run them against a relay
	scripts/ensure-postgres.sh
	scripts/ensure-examples.sh
	WALRELAY_EXAMPLES=all $(GO) test -count 1 -timeout 10m ./examples

test-deploy: ## the alert rules, each fired by a fault, what the Helm chart renders, and PgBouncer
	scripts/ensure-postgres.sh
	scripts/ensure-promtool.sh
	cd deploy/prometheus && promtool check rules walrelay.rules.yaml && promtool test rules walrelay.rules.test.yaml
	cd deploy/test && $(GO) vet . && $(GO) test -count 1 .
	command -v pgbouncer >/dev/null || scripts/apt-install.sh --no-install-recommends pgbouncer
	WALRELAY_TEST_PROMETHEUS=1 WALRELAY_TEST_PGBOUNCER=1 $(GO) test -count 1 -timeout 5m -run 'TestAlerts_Fire|BehindAPooler' ./internal/e2e

test-console: ## the console in a browser, and the first ten minutes of somebody new (screenshots in bin/screenshots)
	scripts/ensure-postgres.sh
	scripts/ensure-browser.sh
	WALRELAY_TEST_BROWSER=1 WALRELAY_TEST_SCREENSHOTS=$(CURDIR)/bin/screenshots $(GO) test -count 1 -timeout 5m -run InABrowser ./internal/e2e
	scripts/first-ten-minutes.sh

test-majors: ## the same against Postgres 14 and 18, and a handover from 17 to 18
	for major in 14 18; do \
		dir=$$(scripts/fetch-postgres.sh $$major $(PG_CACHE)) || exit 1; \
		WALRELAY_TEST_PG_BIN=$$dir $(GO) test -count 1 -short -timeout 10m $(PARALLEL) ./internal/e2e || exit 1; \
		WALRELAY_TEST_PG_BIN=$$dir $(GO) test -count 1 -timeout 5m $(PACKAGES) -run 'StandbySlot|Remedies' ./internal/check ./internal/provision || exit 1; \
	done
	older=$$(scripts/fetch-postgres.sh 17 $(PG_CACHE)) && newer=$$(scripts/fetch-postgres.sh 18 $(PG_CACHE)) && \
		WALRELAY_TEST_PG_BIN=$$older WALRELAY_TEST_PG_NEWER_BIN=$$newer $(GO) test -count 1 -timeout 5m -run ToAnotherCluster ./internal/handover

vet: ## go vet
	$(GO) vet ./...
	$(GO) vet -tags servers ./cmd/walrelay

lint: ## golangci-lint
	$(GOLANGCI) run ./...

# What ends while Go minimizes an input fails with "context deadline exceeded" and no input:
# it is run again. An input that was found is among the seeds then, and fails again.
fuzz: ## a short run of every fuzz test (FUZZTIME=1m)
	for target in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do \
		for name in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$target/*_test.go | cut -c6-); do \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$target || \
			$(GO) test -run "^$$name\$$" -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$target || exit 1; \
		done; \
	done

chaos: ## try to break the promises: every fault in every setting (SEED=42, ARGS="--list", see docs/faults.md)
	scripts/ensure-postgres.sh
	$(GO) run ./internal/chaos $(if $(SEED),--seed $(SEED)) $(ARGS)

test-chaos: ## a short run of it, and whether it finds what broken relays do
	$(GO) run ./internal/chaos --short --controls --seed 1

bench: ## throughput and latency on this machine, beside a bare reader of the slot
	scripts/ensure-postgres.sh
	$(GO) test -run '^$$' -bench . -benchtime 1x -count 3 -timeout 30m ./internal/e2e

demo: ## see it work: throw-away Postgres and nats-server, relay, producer, consumer
	@test -n "$(POSTGRES_URL)" || scripts/ensure-postgres.sh
	@$(MAKE) --no-print-directory build TAGS=servers
	@bin/walrelay demo $(if $(POSTGRES_URL),--postgres-url '$(POSTGRES_URL)')

clean: ## remove what was built
	rm -rf bin
