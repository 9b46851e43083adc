# Every target sets up what it needs; nothing here wants an activated environment.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# More arguments for pytest: make test ARGS="tests/unit -k store"
ARGS ?= tests

# Faults, seed and folder of a chaos run: make chaos FAULTS=200 SEED=1 OUT=dir
FAULTS ?= 200
SEED ?= 1
OUT ?= out/chaos

# The service's port: make serve PORT=8000
PORT ?= 8000

.PHONY: help setup demo serve test chaos parity check check-infra bench clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.dev-installed ## create .venv with everything that development needs

demo: $(VENV)/.installed ## run the main job on the embedded sample manifest, into out/demo
	rm -rf out/demo
	$(BIN)/python -m jobs.synthesize --preset micro-gamecraft --manifest jobs/demo/micro/manifest.jsonl --out out/demo --fleet demo \
		--set runtime.threads=1

serve: $(VENV)/.installed ## serve the page and the API on this machine (PORT), sessions kept in out/serve
	$(BIN)/python -m jobs.serve --preset micro-gamecraft --out out/serve --port $(PORT)

test: setup ## run every test this machine can run
	bash tests/system_packages.sh
	$(BIN)/python -m pytest $(ARGS)

chaos: setup ## hurt a real job FAULTS times (SEED, OUT), check every byte of it; 40 minutes at most
	bash tests/system_packages.sh
	$(BIN)/python -m tests.chaos --faults $(FAULTS) --seed $(SEED) --out "$(OUT)"

parity: $(VENV)/.installed ## compare with the published model's numbers (GOLDENS=dir: with those of another folder)
	@$(BIN)/python -m tests.parity $(if $(GOLDENS),"$(GOLDENS)")

check: setup ## format, lint, types and import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check-infra: setup ## validate every manifest, image, rule and policy under infra/
	bash tests/system_packages.sh
	$(BIN)/python -m pytest tests/infra

bench: setup ## run every benchmark (CHECK=1: status 1 where a figure is short of its goal)
	$(BIN)/python -m tests.bench

bench-%: setup ## run one benchmark: tests/bench/bench_NAME.py
	$(BIN)/python -m tests.bench $*

clean: ## remove outputs and caches; .venv stays
	rm -rf out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find actors gamecraft_core infra jobs orchestrator tests -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# torch first and alone: where both a CPU and a CUDA build of the pinned version are offered, the pin takes the CPU one,
# and what depends on torch then finds it in place.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.installed
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@
