# Needs GNU make, sh and Go; `make generate` needs clang and libbpf's headers as well.

# sudo often drops Go's directory from PATH.
GO ?= $(shell command -v go 2>/dev/null || echo /usr/local/go/bin/go)
GIT = git -c safe.directory='*'
VERSION ?= $(shell $(GIT) describe --tags --always --dirty 2>/dev/null || echo unknown)

# One package at a time: several of them pin busy-polling threads to cores and hold deadlines.
TESTFLAGS ?= -count=1 -p 1 -timeout 8m
# Where goroutines share data.
# control/offline steps everything in one goroutine.
RACE ?= $(shell $(GO) list ./control/... ./dataplane/... | grep -v /control/offline$$)
BENCH ?= .
BENCHTIME ?= 1s
FUZZTIME ?= 60s

# The version comes from the line above; Go's own look at the repository fails when another user owns it.
export GOFLAGS := -buildvcs=false $(GOFLAGS)
export GO

.PHONY: build test demo bench pgo fuzz lint generate clean help

## build: the program, bin/xlvs
build:
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/xlvs ./cmd/xlvs

## test: all tests; those that need root are skipped and named without it
test:
	@GO='$(GO)' sh .ci/test '$(TESTFLAGS)' '$(RACE)'

need-root = $(if $(filter 0,$(shell id -u)),,$(error make $@ needs root, for network namespaces, XDP and AF_XDP: run it with sudo))

## demo: real HTTP through a lab on this machine, in all three modes (root)
demo:
	$(need-root)@$(MAKE) --no-print-directory build
	@bin/xlvs demo

## bench: benchmarks (BENCH=regexp, BENCHTIME=1s)
bench:
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem ./...

## pgo: cmd/xlvs/default.pgo, the profile that the compiler optimises by, from a run of the pipeline here
pgo: build
	@mkdir -p bin/pgo
	bin/xlvs perf run pipeline --quick --runs 9 --only case=hit --cpuprofile bin/pgo/hit.prof >/dev/null
	bin/xlvs perf run pipeline --quick --runs 5 --only case=reply --cpuprofile bin/pgo/reply.prof >/dev/null
	bin/xlvs perf run pipeline --quick --runs 3 --only case=new --cpuprofile bin/pgo/new.prof >/dev/null
	$(GO) tool pprof -proto -output cmd/xlvs/default.pgo bin/pgo/hit.prof bin/pgo/reply.prof bin/pgo/new.prof
	@ls -l cmd/xlvs/default.pgo

## fuzz: every fuzz target for a while (FUZZTIME=60s)
fuzz:
	@sh .ci/fuzz $(FUZZTIME)

## lint: gofmt, go vet, staticcheck
lint:
	@sh .ci/lint

## generate: the BPF objects from their C sources (clang, llvm, libbpf-dev)
generate:
	$(GO) generate ./...

## clean: remove what build made
clean:
	rm -rf bin dist

## help: this list
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)
