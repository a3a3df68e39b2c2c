# What a developer does here. Everything lands in .venv and in temporary directories.
SHELL := /bin/bash
PYTHON ?=
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2
DEMO_ARGS ?=
BENCH_ARGS ?=
INTERLEAVING ?=
INTERLEAVING_S ?=
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo lint lint-types lint-others docs docs-conformance test test-at-length model test-quick chaos interleavings fuzz bench-registry bench-rules bench-transfers bench-ingest lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(INSTALLED) ## install Arriero and its locked dependencies into .venv (PYTHON=... chooses the Python)

$(INSTALLED): requirements.lock pyproject.toml deploy/venv
	@PYTHON='$(PYTHON)' deploy/venv
	@touch $@

demo: venv ## the whole way of a file on this machine, shown live (DEMO_ARGS="--keep" leaves it running)
	@$(BIN)/python deploy/demo/run.py $(DEMO_ARGS)

lint: venv ## ruff, mypy --strict, import-linter, and whether the generated pages are current
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint-types lint-others

lint-types:
	$(BIN)/mypy
	MYPYPATH=deploy $(BIN)/mypy --package servicelib
	MYPYPATH=deploy:benchmarks $(BIN)/mypy --package benchlib

lint-others:
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/generate.py --check

docs: venv ## write the generated pages of docs/reference
	$(BIN)/python docs/generate.py

docs-conformance: venv ## write the page on the official client, from what its tests prove
	@ARRIERO_WRITE_REFERENCE=1 $(BIN)/python deploy/services run -- $(BIN)/python -m pytest tests/conformance

test: lint ## everything, with real servers (as root it installs their Debian packages); PYTEST_ARGS="-k rule"
	@$(BIN)/python deploy/services run -- $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-at-length: lint ## as test, with everything that is tried in part there: each test over HTTP on both databases, all hostile calls
	@ARRIERO_TEST_AT_LENGTH=1 $(BIN)/python deploy/services run -- $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

chaos: venv ## processes that attach, evaluate, copy and change rules, killed at random (CHAOS_S=600 seconds, CHAOS_FILES=10000, CHAOS_SEED=7)
	@ARRIERO_TEST_CHAOS_S=$(or $(CHAOS_S),600) ARRIERO_TEST_CHAOS_FILES=$(or $(CHAOS_FILES),10000) ARRIERO_TEST_CHAOS_SEED=$(CHAOS_SEED) \
		$(BIN)/python -m pytest tests/chaos -s $(PYTEST_ARGS)

fuzz: venv ## the OpenAPI document and hostile calls against the service, at length (FUZZ_EXAMPLES=300 cases of each call, FUZZ_SEED=3)
	@ARRIERO_TEST_FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),300) ARRIERO_TEST_FUZZ_SEED=$(or $(FUZZ_SEED),3) \
		$(BIN)/python deploy/services run -- $(BIN)/python -m pytest tests/registry/test_schemathesis.py tests/registry/test_hostile_input.py tests/registry/test_hostile_names.py tests/registry/test_access.py --timeout 1200 $(PYTEST_ARGS)

model: venv ## the state machine of rules at length, new examples each time (MODEL_EXAMPLES=500 of each system)
	@ARRIERO_TEST_MODEL_EXAMPLES=$(or $(MODEL_EXAMPLES),500) \
		$(BIN)/python deploy/services run --only postgresql -- $(BIN)/python -m pytest tests/scheduler/test_model.py $(PYTEST_ARGS)

interleavings: venv ## every order of two sessions (3 minutes) and three (hours) on PostgreSQL (INTERLEAVING="attach+evaluate" or "attach+evaluate: 0x5 1x3"; INTERLEAVING_S=60 seconds each)
	@ARRIERO_TEST_INTERLEAVINGS=all ARRIERO_TEST_INTERLEAVING='$(INTERLEAVING)' ARRIERO_TEST_INTERLEAVING_S=$(INTERLEAVING_S) \
		$(BIN)/python deploy/services run --only postgresql -- $(BIN)/python -m pytest -rP -n $(TEST_PROCESSES) --dist load \
		tests/scheduler/test_interleavings.py tests/scheduler/test_interleavings_three.py $(PYTEST_ARGS)

test-quick: venv ## the tests that need no server
	@$(BIN)/python -m pytest -m "not services and not system" $(PYTEST_ARGS)

bench-registry: venv ## the registry beside Rucio 41.5.1 and a bare COPY, about an hour; BENCH_ARGS="--sizes 10000"
	@$(BIN)/python deploy/services run --only postgresql --only redis -- $(BIN)/python benchmarks/registry $(BENCH_ARGS)

bench-rules: venv ## rules beside Rucio 41.5.1 and their bare rows, about half an hour; BENCH_ARGS="--sizes 10000"
	@$(BIN)/python deploy/services run --only postgresql -- $(BIN)/python benchmarks/rules $(BENCH_ARGS)

bench-transfers: venv ## copies and deletions beside rclone, curl, gfal2 and Rucio's conveyor, about half an hour; BENCH_ARGS="--parts small"
	@$(BIN)/python deploy/services run --only postgresql --only redis -- $(BIN)/python benchmarks/transfers $(BENCH_ARGS)

bench-ingest: venv ## the ingest beside the Butler's own API and commands, about an hour; BENCH_ARGS="--parts exposures"
	@$(BIN)/python deploy/services run --only postgresql --only redis -- $(BIN)/python benchmarks/ingest $(BENCH_ARGS)

lock: ## compile requirements.lock again from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes --no-header -o requirements.lock

clean: ## remove .venv, caches and built files
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find rse registry scheduler agent tests deploy benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
