# The project's checks. `make check` is what a change must pass; .ci/run does the same and more on a clean machine.
GO       ?= go
FUZZTIME ?= 10m
BENCHTIME ?= 1s

.PHONY: check test bench fuzz fuzz-targets build dist

build:
	$(GO) build -o postroom ./cmd/postroom

# Static binaries to hand out. The same commit gives the same octets, wherever it is built with the same Go.
VERSION ?= $(shell git describe --tags --always --dirty)
REVISION ?= $(shell git rev-parse HEAD)
dist:
	@rm -rf dist && mkdir dist
	@for arch in amd64 arm64; do \
	  echo "dist/postroom-$(VERSION)-linux-$$arch"; \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch GOAMD64=v1 GOARM64=v8.0 GOFLAGS= $(GO) build -trimpath -buildvcs=false \
	    -ldflags "-s -w -X main.release=$(VERSION) -X main.revision=$(REVISION)" -o dist/postroom-$(VERSION)-linux-$$arch ./cmd/postroom || exit 1; \
	done
	@cd dist && sha256sum postroom-* >SHA256SUMS && cat SHA256SUMS

test:
	$(GO) test ./...

check:
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	GOARCH=386 $(GO) vet ./...
	$(GO) tool staticcheck ./...
	@if command -v govulncheck >/dev/null; then govulncheck ./...; else echo "skipped: govulncheck is not installed"; fi
	$(GO) test -race -shuffle=on ./...

bench:
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

# Every fuzz target, one after the other, FUZZTIME each. FUZZTIME=10s for a short run.
fuzz:
	@$(MAKE) -s fuzz-targets | while read -r pkg target; do .ci/fuzz $$pkg $$target $(FUZZTIME) || exit 1; done

fuzz-targets:
	@grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r f; do \
	  sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|$$(dirname $$f) \1|p" $$f; done
