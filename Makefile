# Cambium. `make` lists the targets; each does its own set-up on a Debian machine with a Rust toolchain.

# Outside the clone, so that clones share work; every target is right when these are empty.
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cambium
export CARGO_TARGET_DIR ?= $(CACHE)/target
VENV := $(CACHE)/venv
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PACKAGES := build-essential ca-certificates libssl-dev pkg-config python3 python3-venv

DATA ?= ./data
TYPOS_VERSION := 1.52.0
PYARROW_VERSION := 26.0.1
SCENARIO ?= loadtest/scenarios/small.toml

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: run
run: packages ours ## build Cambium and start it at http://127.0.0.1:4040, profiling itself
	cargo run --profile quick-release --bin cambium -- --data-dir $(DATA)

.PHONY: test
test: packages venv ours ## run every test
	CAMBIUM_PYTHON=$(VENV)/bin/python cargo test --workspace --quiet

.PHONY: peers
peers: packages ## build the real peers of the tests (needs Go, takes what Debian has); `make test` does so when it needs one
	./services/simulation/peers/build.sh

.PHONY: check
check: packages venv ours ## formatting, lints, spelling; part of CI
	cargo fmt --all --check
	$(VENV)/bin/typos --config .typos.toml .
	cargo clippy --workspace --all-targets --quiet -- -D warnings

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all

.PHONY: bench
bench: packages ours ## the bars of docs/performance.md, with their ceilings; about 15 minutes
	cargo run --profile quick-release -p cambium-simulation --bin bench

.PHONY: soak
soak: packages ours ## a day of running in MINUTES=30, with kills and checked sums; draws docs/soak.svg
	cargo build --profile quick-release -p cambium-simulation --bins
	cargo run --profile quick-release -p cambium-simulation --bin soak -- $(or $(MINUTES),30)

.PHONY: capacity
capacity: ## what AGENTS="100 1000" need, by the figures of docs/performance.md; docs/capacity.md has the variables
	@./docs/capacity.sh $(or $(AGENTS),100 1000 10000)

.PHONY: loadtest
loadtest: packages ours ## drive a running server with SCENARIO, verify its sums; ARGS: loadtest/README.md
	cargo run --profile quick-release -p cambium-loadtest -- run --scenario $(SCENARIO) $(ARGS)

.PHONY: fuzz
fuzz: packages ours ## every fuzz target for FUZZ_SECONDS in all
	./services/simulation/fuzz/smoke.sh $(or $(FUZZ_SECONDS),60)

.PHONY: golden
golden: ## make the answers of Go's pprof again (needs Go)
	./services/simulation/golden/regenerate.sh

# What builds and tests need from Debian; asks for nothing when it is there.
.PHONY: packages
packages:
	@missing=""; for package in $(PACKAGES); do \
	  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "installing$$missing"; \
	  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi

# Cargo believes a file unchanged when it is older than what was built from it, whichever clone that was. A clone that
# comes to the shared folder of builds, for the first time or again, says that its files are new.
.PHONY: ours
ours:
	@mkdir -p $(CARGO_TARGET_DIR); \
	if [ "$$(cat $(CARGO_TARGET_DIR)/.clone 2>/dev/null)" != "$(CURDIR)" ]; then \
	  git ls-files -z '*.rs' '*.proto' '*Cargo.toml' | xargs -0 touch; \
	  echo "$(CURDIR)" > $(CARGO_TARGET_DIR)/.clone; \
	fi

# Python tools in a folder of their own: the spell checker, and an independent reader of Parquet.
.PHONY: venv
venv: packages
	@[ -f $(VENV)/.$(TYPOS_VERSION)-$(PYARROW_VERSION) ] || { \
	  python3 -m venv $(VENV) && \
	  $(VENV)/bin/pip install --quiet --disable-pip-version-check typos==$(TYPOS_VERSION) pyarrow==$(PYARROW_VERSION) && \
	  touch $(VENV)/.$(TYPOS_VERSION)-$(PYARROW_VERSION); }
