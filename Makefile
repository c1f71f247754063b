# Two verbs for a new user: `make demo`, `make test`. The rest is for people who work on it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
PYTEST_ARGS ?=

# Where the environment forbids bytecode, every process would compile everything again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install servers demo test soak dev lint bench clean

help: ## list the verbs
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(VENV)/installed ## create .venv with the pinned versions

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

servers: ## install the servers that the tests start (Debian packages; needs root once)
	@bash tests/servers/install.sh

demo: install ## run two pipelines on real data to a finished result
	@$(BIN)/etl demo

test: install servers ## every test
	$(BIN)/python -m pytest -n 3 --dist loadfile $(PYTEST_ARGS)

soak: install servers ## what takes too long for every change: more random cases, more sources, larger streams
	ETL_SOAK=1 ETL_EXAMPLES=100 $(BIN)/python -m pytest -n 2 --dist loadfile -m "soak or slow" $(PYTEST_ARGS)

dev: install ## the Dagster web UI with daemon, on http://127.0.0.1:3000
	$(BIN)/dagster dev

lint: install ## style, types, one-way imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install servers ## performance against the limit and against peers
	$(BIN)/python -m bench

clean: ## remove everything that was made
	rm -rf .lake .dagster data $(VENV)
