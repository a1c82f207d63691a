# The commands of Helix. `make demo` and `make test` are the two that matter; each sets up what it needs.
.DEFAULT_GOAL := help
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c

# Every cargo call links the one prebuilt RocksDB (scripts/rocksdb.sh).
ROCKSDB = ROCKSDB_LIB_DIR="$$(scripts/rocksdb.sh)" && export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
TARGET = $${CARGO_TARGET_DIR:-target}
ARGS ?=
# Where rustup puts what scripts/setup.sh may just have installed with it.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: ## builds Helix and shows two agents surviving the death of their worker (ARGS="--kill ask")
	@scripts/needs.sh demo
	@scripts/setup.sh build
	@$(ROCKSDB) && cargo build --workspace --bins
	@"$(TARGET)/debug/helix" demo $(ARGS)

.PHONY: test
test: ## every test, with a real PostgreSQL, a real sshd and real kills
	@scripts/needs.sh test
	@scripts/setup.sh test clients
	@$(ROCKSDB) && cargo build --workspace --bins && cargo test --workspace --lib --bins --tests --no-fail-fast && cargo test --workspace --doc
	@scripts/peers.sh --missing clients

.PHONY: campaign
campaign: ## the long counts: 30 of each kill, stop and cut, 500 kills of the version store's engine, 1,000 simulation seeds, 200 sequences and 200 histories beside git
	@scripts/setup.sh test clients litellm agents
	@$(ROCKSDB) && scripts/dist.sh worker
	@$(ROCKSDB) && cargo build --workspace --bins && HELIX_CAMPAIGN=30 HELIX_SEEDS=1000 DIFFERENTIAL_CASES=200 HISTORY_CASES=200 cargo test --workspace --tests --no-fail-fast -- --nocapture
	@$(ROCKSDB) && HELIX_CAMPAIGN=500 cargo test --workspace --test helios deaths::every -- --nocapture
	@scripts/peers.sh --missing clients litellm agents

.PHONY: lint
lint: ## rustfmt, clippy, cargo-deny (where installed), layers
	@cargo fmt --all --check
	@$(ROCKSDB) && cargo clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check licenses bans sources; else echo "cargo-deny is not installed: licences, bans and sources not checked"; fi
	@$(ROCKSDB) && cargo test -q -p helix --test layers

.PHONY: bench
bench: ## measures the figures and writes docs/benchmarks.md (about 20 minutes; ARGS="--quick")
	@scripts/setup.sh test restate
	@$(ROCKSDB) && scripts/bench.sh spine $(ARGS)
	@scripts/peers.sh --missing restate

.PHONY: bench-helios
bench-helios: ## measures the version store beside git (about 20 minutes; ARGS="--quick")
	@scripts/setup.sh releases
	@$(ROCKSDB) && scripts/bench.sh helios $(ARGS)

.PHONY: bench-models
bench-models: ## measures the gateway beside LiteLLM and a bare proxy (10 to 20 minutes, as quiet as the machine is; ARGS="--quick")
	@scripts/setup.sh build litellm
	@$(ROCKSDB) && scripts/bench.sh models $(ARGS)
	@scripts/peers.sh --missing litellm

.PHONY: dist
dist: ## stripped release binaries in target/dist; helix-worker is static
	@scripts/setup.sh build
	@$(ROCKSDB) && scripts/dist.sh

.PHONY: fmt
fmt: ## formats the code
	@cargo fmt --all
