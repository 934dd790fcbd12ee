.DEFAULT_GOAL := help

TOOL := go tool -modfile=tools/go.mod
FUZZTIME ?= 10s

# Test binaries need no debug symbols: without them linking takes half the time.
export GOFLAGS += -ldflags=-s

# The end-to-end tests run this binary. Without it each of their packages builds its own.
SERVER := $(CURDIR)/bin/agentmarket
WITH_SERVER := AGENTMARKET_TEST_BINARY=$(SERVER)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

run: ## serve on 127.0.0.1:8080 with ./agentmarket.db (flags in ARGS)
	go run . $(ARGS)

server-binary:
	go build -o $(SERVER) .

# Tests run without go vet: make lint runs all of its analyzers.
test: server-binary ## run all tests on SQLite, then the tests of the store on PostgreSQL, then those of bench
	$(WITH_SERVER) go test -vet=off -shuffle=on ./...
	$(MAKE) --no-print-directory postgres
	go -C bench test -vet=off -shuffle=on ./...

# The packages whose tests run on PostgreSQL too, the slowest first.
POSTGRES ?= ./internal/test/e2e/replicas ./internal/market ./internal/webhooks ./internal/database ./internal/events ./internal/ledger ./internal/app ./internal/auth

# testservices starts PostgreSQL and NATS and installs them if it can. If they are
# missing it skips the tests with a message; with CI set it fails.
postgres: server-binary ## run the tests of the store and of replicas on PostgreSQL (packages in POSTGRES)
	$(WITH_SERVER) go run ./internal/test/testservices go test -vet=off -shuffle=on $(POSTGRES)

# Without cgo the SQLite driver is modernc.org/sqlite. CI runs the tests of packages with
# SQL, the quick start and the kill test on it. NOCGO=./... runs everything.
nocgo: ## run the tests of the store, the quick start and the kill test without cgo (packages in NOCGO)
ifdef NOCGO
	CGO_ENABLED=0 go test -vet=off -shuffle=on $(NOCGO)
else
	CGO_ENABLED=0 go test -vet=off -shuffle=on ./internal/database ./internal/ledger ./internal/market ./internal/webhooks
	CGO_ENABLED=0 go test -vet=off -shuffle=on -run '^(TestQuickStart|TestKill)$$' ./internal/test/e2e
endif

# Flags: -only kill,winner shows some claims; -gate shows those that make test does not;
# -into docs/reliability.md replaces the table in that page.
trust: server-binary ## show every claim of docs/reliability.md with its measurement (flags in ARGS)
	$(WITH_SERVER) go run ./internal/test/trust $(ARGS)

trust-long: server-binary ## the same for a whole night, and fuzzing (ARGS='-share 0.1' for a tenth)
	$(WITH_SERVER) go run ./internal/test/trust -long $(ARGS)
	$(MAKE) --no-print-directory fuzz FUZZTIME=10m

check: lint fresh dead portable race ## everything a change must pass in addition to make test

generate: ## regenerate code and documents
	go generate ./...
	go -C bench generate ./...
	go test ./internal/test/repo ./compat -run 'TestGraphQLPage|TestRESTDocs' -update

# Compares the tree before and after generating, not with the last commit, so that it works
# in the middle of a change. Commit the files it rewrites.
fresh: ## fail if generated files, go.mod or go.sum are out of date
	go mod tidy -diff
	go -C bench mod tidy -diff
	@before=$$(mktemp) && after=$$(mktemp) && trap 'rm -f "$$before" "$$after"' EXIT && \
	list() { git ls-files -z --cached --others --exclude-standard | sort -zu | xargs -0 sha256sum 2>/dev/null || true; } && \
	list > "$$before" && $(MAKE) --no-print-directory generate && list > "$$after" && \
	{ diff "$$before" "$$after" || { echo 'generated files were out of date: make generate rewrote the files above' >&2; exit 1; }; }
	@! grep -rn '!!! WARNING !!!' --include='*.go' graph || { echo 'delete these resolvers: they are no longer in the schema' >&2; exit 1; }

fuzz: ## run every fuzz target for FUZZTIME (10s)
	@set -e; for f in $$(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$f); do \
			echo "$$(dirname $$f) $$target"; \
			go test $$(dirname $$f) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME); \
		done; \
	done

lint: ## run golangci-lint with .golangci.yml, and the check for plain English
	$(TOOL) golangci-lint run
	cd bench && go tool -modfile=../tools/go.mod golangci-lint run
	go test -vet=off -run '^TestProse' ./internal/test/repo

fmt: ## format with gofumpt and gci
	$(TOOL) golangci-lint fmt

# Packages in which goroutines share state. -short runs property tests a fifth as often.
# RACE=./... runs everything.
RACE ?= ./internal/auth ./internal/database/... ./internal/ledger ./internal/events ./internal/keyedsem ./internal/idempotency ./internal/audit ./internal/outbound ./internal/market ./internal/executor ./internal/webhooks ./graph/... ./compat ./internal/app

race: ## run the tests of concurrent code under the race detector (packages in RACE)
	go test -race -short -vet=off -shuffle=on $(RACE)

# deadcode type-checks the sources for another system without compiling them. Code that
# is specific to macOS also applies to Linux or Windows.
portable: ## type-check the program for Windows
	@tool=$$($(TOOL) -n deadcode) && GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $$tool . >/dev/null

dead: ## list functions that neither the program nor a test reaches
	@found=$$($(TOOL) deadcode -test ./...) && { [ -z "$$found" ] || { echo "$$found" >&2; exit 1; }; }

sbom: ## write a bill of materials in CycloneDX format to sbom.json
	CGO_ENABLED=0 go tool -modfile=tools/sbom.mod cyclonedx-gomod app -json -licenses -std -output sbom.json -main . .

bench: ## compare the server with the baselines, about twelve minutes (flags in ARGS; -peers adds other servers)
	go -C bench run . $(ARGS)

.PHONY: help run server-binary test postgres nocgo sbom trust trust-long check generate fresh fuzz lint fmt race dead portable bench
