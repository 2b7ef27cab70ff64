# What a developer does with SettMQ. Plain make lists it.

GO       ?= go
FUZZTIME ?= 30s
BENCH    ?= .
# make nightly: the torture and fault tests of CI with larger figures.
NIGHTLY_KILLS    ?= 2000
NIGHTLY_MESSAGES ?= 20000000
NIGHTLY_CHECKS   ?= 2000
NIGHTLY_FUZZTIME ?= 30m

LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/settmq
	$(GO) build -trimpath -o bin/settmq ./cmd/settmq

.PHONY: run
run: ## run a broker with the default settings
	$(GO) run ./cmd/settmq

.PHONY: test
test: ## all tests, the black-box suites against a broker of their own included
	$(GO) test ./...

.PHONY: race
race: ## all tests with the race detector, in the broker under test too
	SETTMQ_BUILD_FLAGS=-race $(GO) test -race -short ./...

.PHONY: integration
integration: ## the black-box suites alone, on AMQP_URL if it is set
	$(GO) test -count=1 ./integration/ ./integration/raw/

.PHONY: clients
clients: build ## the tutorial programs in Python and Node
	SETTMQ_BINARY=$(CURDIR)/bin/settmq ci/with-broker integration/clients/run

.PHONY: torture
torture: ## kill the broker under load and account for every message
	$(GO) run ./integration/torture

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s)
	@ci/fuzz $(FUZZTIME)

.PHONY: bench
bench: ## micro-benchmarks (BENCH=regexp); for whole brokers see bench/README.md
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./amqp/... ./exchange/... ./queue/... ./storage/... ./server/... ./broker/...

.PHONY: lint
lint: ## vet and golangci-lint with .golangci.yml
	$(GO) vet ./...
	$(GO) run $(LINT) run ./...

.PHONY: fmt
fmt: ## format all files as CI wants them
	$(GO) run $(LINT) fmt ./...

.PHONY: generate
generate: ## write the generated code again
	$(GO) generate ./...

.PHONY: ci
ci: ## everything CI does; STEPS="lint fuzz" for some of it
	.ci/run $(STEPS)

.PHONY: nightly
nightly: ## hours of torture, faults and fuzzing
	$(GO) run ./integration/torture -kills $(NIGHTLY_KILLS) -messages $(NIGHTLY_MESSAGES) -q -o nightly.out
	$(GO) test -count=1 -timeout 12h ./storage/... -args -rapid.checks=$(NIGHTLY_CHECKS)
	ci/fuzz $(NIGHTLY_FUZZTIME)

.PHONY: clean
clean: ## remove what make built
	rm -rf bin bench/out nightly.out
