# Plain make lists the targets.
.DEFAULT_GOAL := help
PEER ?=
PEER_NAME ?= peer
PEER_CMD ?=
PEER_SETTINGS ?=
SCENARIOS ?=
DURATION ?= 5s
ROUNDS ?= 5
FUZZTIME ?= 60s

LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: help build run test race lint fmt generate fuzz faults integration contract compare clients rabbitmqadmin2 ansible delays streams torture bench nightly ci clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

build: ## the binary, in bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/settmq ./cmd/settmq

run: ## a broker with the default settings
	go run ./cmd/settmq

test: ## everything quick, as in the readme
	go test ./...

race: ## the same with the race detector, also in the broker under test
	SETTMQ_BUILD_FLAGS=-race go test -race -short ./...

lint: ## vet, and golangci-lint as .golangci.yml says
	go vet ./...
	$(LINT) run ./...

fmt: ## format everything as lint wants it
	$(LINT) fmt ./...

generate: ## the codec from the specification
	go generate ./...

fuzz: ## every fuzz target for FUZZTIME
	ci/fuzz $(FUZZTIME)

faults: ## power cuts, failing calls, damage: more of them than in test
	go test ./storage/ -count=1 -rapid.checks=250
	go test -count=1 ./storage/journal/... ./stream/

integration: ## the black-box suites; AMQP_URL=... runs them on any broker
	go test -count=1 ./integration/ ./integration/raw/

contract: ## record what the RabbitMQ at MANAGEMENT_URL and AMQP_URL answers, for the management API's contract tests
	go test -count=1 ./management -run TestContract -record

clients: build ## programs with the world's clients
	SETTMQ_BINARY=$(CURDIR)/bin/settmq integration/clients/run

rabbitmqadmin2: build ## every command of rabbitmqadmin 2, which is built first: five minutes
	SETTMQ_BINARY=$(CURDIR)/bin/settmq ci/with-broker ci/rabbitmqadmin2

ansible: build ## Ansible's modules for RabbitMQ, by rabbitmqctl and rabbitmq-plugins
	SETTMQ_BINARY=$(CURDIR)/bin/settmq integration/ansible/run

delays: ## a million delayed messages, due at 20 000 a second after a kill -9
	go test -count=1 -v -timeout 15m ./integration -run TestManyDelaysSurviveAKill -delays 1000000

streams: ## five million messages through a stream, with a restart and retention
	go test ./integration/ -count=1 -timeout 2h -v -run TestStreamOfAnySize -stream-messages 5000000

compare: ## random conversations with the brokers of AMQP_URL and PEER_URL: both have to say the same
	go test ./integration/compare -v -conversations 200 -parallel 8 -last 40
	go test ./integration/compare -v -conversations 100 -parallel 8 -last 40 -quorum

torture: ## kill -9 under load and account for every message
	go run ./integration/torture -kills 100 -messages 1000000

bench: build ## the scenarios; beside a peer (PEER=amqp://..., PEER_NAME, PEER_CMD) it writes bench/results and the tables
	@mkdir -p bench/out bench/results
	@printf 'listeners: [{address: "127.0.0.1:5799"}]\ndata_dir: bench/out/data\nlog: {level: error}\nmanagement: {listen: ""}\nmetrics: {listen: ""}\n' > bench/out/settmq.yaml
	@go build -o bench/out/bench ./bench
	@if [ -n "$(PEER)" ]; then \
		bench/out/bench compare -rounds $(ROUNDS) -duration $(DURATION) -probe-dir bench/out -save 'bench/results/$(shell echo $(PEER_NAME) | tr A-Z a-z).json' \
			-a amqp://guest:guest@127.0.0.1:5799/ -a-label SettMQ -a-cmd 'exec bin/settmq serve --config bench/out/settmq.yaml' -a-pause \
			-b '$(PEER)' -b-label '$(PEER_NAME)' -b-settings '$(PEER_SETTINGS)' $(if $(PEER_CMD),-b-cmd '$(PEER_CMD)' -b-pause) $(SCENARIOS) && \
		bench/out/bench report -table README.md -goals docs/performance.md 'bench/results/*.json'; \
	else \
		bench/out/bench run -duration $(DURATION) -probe-dir bench/out -url amqp://guest:guest@127.0.0.1:5799/ \
			-cmd 'exec bin/settmq serve --config bench/out/settmq.yaml' -json bench/out/run.json $(SCENARIOS); \
	fi

nightly: ## the long form of the random tests
	go run ./integration/torture -kills 2000 -messages 20000000 -o torture.json
	go test ./storage/ ./queue/fifo/ -count=1 -timeout 8h -rapid.checks=20000
	$(MAKE) fuzz FUZZTIME=1h

ci: ## what a change has to pass; STEPS="lint fuzz" for a part of it
	.ci/run $(STEPS)

clean: ## what make has built
	rm -rf bin bench/out torture.json
