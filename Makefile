# What one does with Hilum, at home and in CI alike.
#
#   make demo    set up what is missing, start Orthanc and Hilum, show a phantom chest go through both (DEMO_EXIT=1 ends by itself)
#   make test    set up what is missing, run every test
#   make kills   kill -9 of the service at N random moments (SEED repeats a run), and what must be true afterwards
#   make lint    formatting, clippy, licences and sources, unused dependencies
#   make bench   the speed of each stage, and of peers beside it
#   make fuzz    each fuzz target for FUZZ_SECONDS
#
# HILUM_TEST_DATA names a folder of real CT for the tests that want it (tests/README.md); without it they say that they were skipped.

SHELL := /bin/bash
.DEFAULT_GOAL := help
FUZZ_SECONDS ?= 60
N ?= 100
SEED ?=
DEMO ?= out/demo
DEMO_EXIT ?=

# Half as many tests again as cores: most of the service's wait for something.
export NEXTEST_TEST_THREADS ?= $(shell echo $$(( $$(nproc) + $$(nproc) / 2 )))
RUNNER := $(shell command -v cargo-nextest >/dev/null 2>&1 && echo "nextest run --no-fail-fast" || echo "test --no-fail-fast")

# Programs that look at manifests for a second: not worth minutes of optimisation.
INSTALL := CARGO_PROFILE_DEV_DEBUG=0 cargo install --debug --locked --quiet

.PHONY: help setup setup-tests build demo test kills lint bench fuzz

help:
	@sed -n '3,10s/^# \{0,1\}//p' Makefile

setup:
	@scripts/setup.sh

setup-tests:
	@scripts/setup.sh tests

build: setup
	cargo build --release --locked --bin hilum

demo: build
	@scripts/setup.sh demo
	@target=$$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/') && DEMO_EXIT=$(DEMO_EXIT) scripts/demo.sh "$$target/release/hilum" $(DEMO)

test: setup-tests
	HILUM_TEST_PYTHON="$(CURDIR)/.venv/bin/python" scripts/with-postgres.sh scripts/tests.sh $(RUNNER)

kills: setup-tests
	HILUM_KILLS=$(N) HILUM_KILLS_SEED=$(SEED) scripts/with-postgres.sh cargo test --locked --test service_kills -- --nocapture random_kills

lint:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	@command -v cargo-deny >/dev/null 2>&1 || $(INSTALL) cargo-deny@0.20.2
	cargo deny --locked check bans licenses sources
	@command -v cargo-machete >/dev/null 2>&1 || $(INSTALL) cargo-machete@0.9.2
	cargo machete

bench: build
	cargo bench --locked
	@scripts/setup.sh bench
	COMPARE_PYTHON=.venv-bench/bin/python benches/compare/run.sh

fuzz: setup
	FUZZ_SECONDS=$(FUZZ_SECONDS) fuzz/run.sh
