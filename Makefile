.DEFAULT_GOAL := help

TOOL := go tool -modfile=tools/go.mod
FUZZTIME ?= 10s

# Without symbols for a debugger a test links in half the time.
export GOFLAGS += -ldflags=-s

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

run: ## serve on 127.0.0.1:8080 with ./agentmarket.db (flags in ARGS)
	go run . $(ARGS)

test: ## every test, shuffled: units, transcripts, npm clients, the explorer in a browser, PostgreSQL
	go test -shuffle=on ./...
	$(MAKE) --no-print-directory postgres
	go -C bench test -shuffle=on ./...

# Starts PostgreSQL and NATS for the tests. It installs them where it may; where
# they cannot be had it says so, and fails with CI set. The longest come first, so that
# none is left alone at the end.
postgres: ## the same tests of the store and the market, and those of replicas, on PostgreSQL
	go run ./internal/test/testservices go test -shuffle=on ./internal/test/e2e/replicas ./internal/market ./internal/webhooks ./internal/database ./internal/events ./internal/ledger ./internal/app ./internal/auth

# Where SQLite is Go code instead: what has statements of its own, and all that is seen
# from outside. NOCGO=./... is everything.
NOCGO ?= ./internal/database ./internal/auth ./internal/ledger ./internal/market ./internal/webhooks ./graph ./compat ./internal/outbound ./internal/test/e2e

nocgo: ## the tests of the store, the market and the program without cgo (packages in NOCGO)
	CGO_ENABLED=0 go test -shuffle=on $(NOCGO)

# Every promise of docs/reliability.md with its figure. -only kill,winner shows some
# of them; -into docs/reliability.md puts the table there.
trust: ## show every promise of docs/reliability.md, in some minutes (flags in ARGS)
	go run ./internal/test/trust $(ARGS)

trust-long: ## the same with the figures of a night, and fuzzing (ARGS='-share 0.1' for a tenth)
	go run ./internal/test/trust -long $(ARGS)
	$(MAKE) --no-print-directory fuzz FUZZTIME=10m

check: lint race dead portable fresh ## what a change must pass

generate: ## rewrite what is generated
	go generate ./...
	go -C bench generate ./...
	go test ./internal/test/repo ./compat -run 'TestGraphQLPage|TestRESTDocs' -update

# Compares the tree before and after, not with the last commit, so that it also
# answers in the middle of a change. Whatever it rewrote is left to be committed.
fresh: ## generated files, go.mod and go.sum are what they would be made now
	go mod tidy -diff
	go -C bench mod tidy -diff
	@before=$$(mktemp) && after=$$(mktemp) && trap 'rm -f "$$before" "$$after"' EXIT && \
	list() { git ls-files -z --cached --others --exclude-standard | sort -zu | xargs -0 sha256sum 2>/dev/null || true; } && \
	list > "$$before" && $(MAKE) --no-print-directory generate && list > "$$after" && \
	{ diff "$$before" "$$after" || { echo 'generated files were stale: make generate has rewritten those above' >&2; exit 1; }; }
	@! grep -rn '!!! WARNING !!!' --include='*.go' graph || { echo 'resolvers the schema no longer has: delete them' >&2; exit 1; }

fuzz: ## every fuzz target for FUZZTIME (10s)
	@set -e; for f in $$(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$f); do \
			echo "$$(dirname $$f) $$target"; \
			go test $$(dirname $$f) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME); \
		done; \
	done

lint: ## everything .golangci.yml asks, formatting included
	$(TOOL) golangci-lint run
	cd bench && go tool -modfile=../tools/go.mod golangci-lint run

fmt: ## gofumpt and import order
	$(TOOL) golangci-lint fmt

# Where goroutines share state. Properties are looked at a fifth as often (-short): it is
# the same code that runs. make test has vetted it. RACE=./... is everything.
RACE ?= ./internal/auth ./internal/database/... ./internal/ledger ./internal/events ./internal/market ./internal/outbound ./internal/executor ./internal/webhooks ./graph/... ./compat ./internal/app

race: ## the tests of what is concurrent under the race detector, shuffled (packages in RACE)
	go test -race -short -vet=off -shuffle=on $(RACE)

# deadcode reads the sources for any system, and compiles nothing. What macOS has of its
# own Linux or Windows has too.
portable: ## the program is sound Go for Windows too
	@tool=$$($(TOOL) -n deadcode) && GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $$tool . >/dev/null

dead: ## functions that neither a program nor a test reaches
	@found=$$($(TOOL) deadcode -test ./...) && { [ -z "$$found" ] || { echo "$$found" >&2; exit 1; }; }

sbom: ## write sbom.json: what the program is made of, in CycloneDX
	CGO_ENABLED=0 go tool -modfile=tools/sbom.mod cyclonedx-gomod app -json -licenses -std -output sbom.json -main . .

bench: ## measure ours and the baselines alternately, about ten minutes (flags in ARGS; -peers for more servers)
	go -C bench run . $(ARGS)

.PHONY: help run test postgres nocgo sbom trust trust-long check generate fresh fuzz lint fmt race dead portable bench
