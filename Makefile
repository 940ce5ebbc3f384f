# What can be done with this folder. `make` lists it.

# OFFHOOK_PROFILE=dev builds faster what runs slower.
ifeq ($(OFFHOOK_PROFILE),dev)
CARGO_PROFILE :=
BUILT := debug
else
CARGO_PROFILE := --release
BUILT := release
endif

TARGET := $(or $(CARGO_TARGET_DIR),target)
OFFHOOK := $(TARGET)/$(BUILT)/offhook
# Whichever build there is rings.
DIALLER = $(firstword $(wildcard $(OFFHOOK) $(TARGET)/release/offhook $(TARGET)/debug/offhook))
# Where `run` keeps everything, and `dial` finds it.
DATA ?= data
# Simulated calls of `test`: always the same ones.
SEEDS ?= 2000
# How long `fuzz` tries each target, in seconds.
FUZZ_S ?= 600
FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

# The same tests either way; nextest shows them better and ends those that hang.
ifneq ($(shell command -v cargo-nextest),)
RUN_TESTS := cargo nextest run --workspace
else
RUN_TESTS := cargo test --workspace
endif

.DEFAULT_GOAL := help
.PHONY: help setup build run dial dev test lint bench bench-server fuzz clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-22s %s\n", $$1, $$2 }'

setup: ## Install, or ask for, everything that building and testing need
	@scripts/setup test

build: ## Build the offhook command
	@scripts/setup build
	cargo build $(CARGO_PROFILE) -p offhook

run: build ## Answer the phone, with a demo agent and no account
	@echo
	@echo 'When it says "ready", ring it from a second terminal:  make dial'
	@echo 'or say something of your own:                          make dial SAY="Do you have parking?"'
	@echo
	@exec $(OFFHOOK) serve --data $(DATA)

dial: ## Ring the running server: a simulated call in real time (SAY="…" to choose the words)
	@test -n "$(DIALLER)" || { echo 'there is nothing to dial with: run `make run` first, in another terminal'; exit 1; }
	@exec $(DIALLER) dial --data $(DATA) $(if $(SAY),"$(SAY)")

dev: ## Answer the phone from a quick build, and tell more in the log
	@OFFHOOK_LOG_LEVEL="$${OFFHOOK_LOG_LEVEL:-info,offhook_server=debug,offhook_providers=debug}" $(MAKE) --no-print-directory run OFFHOOK_PROFILE=dev

test: export PATH := $(abspath $(TARGET))/venv/bin:$(PATH)
test: ## Test everything: links, style, units, both databases, end to end, 2,000 simulated calls
	@scripts/setup test
	scripts/check-links
	@$(MAKE) --no-print-directory lint
	scripts/with-postgres $(RUN_TESTS)
	cargo run --quiet -p offhook -- simulate --seeds $(SEEDS)

lint: ## Check formatting and lints; warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bench: ## Measure with callbench (CALLBENCH=folder), write docs/benchmarks.md; takes 20 minutes
	scripts/bench

bench-server: ## Start Offhook alone for callbench, on 127.0.0.1:8787
	@$(MAKE) --no-print-directory build OFFHOOK_PROFILE=release 1>&2
	@exec scripts/bench-server

fuzz: ## Try what strangers may send, FUZZ_S seconds for each target
	@command -v cargo-fuzz >/dev/null || { echo 'cargo-fuzz is missing: cargo install cargo-fuzz'; exit 1; }
	@for target in $(FUZZ_TARGETS); do \
		echo "fuzzing $$target for $(FUZZ_S) s"; \
		RUSTC_BOOTSTRAP=1 cargo fuzz run $$target -- -max_total_time=$(FUZZ_S) || exit 1; \
	done

clean: ## Remove what was built; data stays
	cargo clean
