# `make` says what there is. Everything lives in this folder: .venv/ for the libraries, var/ for
# what the pipeline makes. All paths are relative, so the folder's own path may hold spaces.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo demo-small test test-all check dev clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'PYTHON=python3.12 names the interpreter that install uses (3.11 or newer).'
	@echo 'ARGS="..." is handed on to demo, demo-small, test, test-all and dev.'

install: $(STAMP) ## Build .venv from constraints.txt (pip's own settings and PIP_* variables hold)

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
		echo 'There is no "$(PYTHON)" here. Install Python 3.11 or newer, or name one: make install PYTHON=...' >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
		"This needs Python 3.11 or newer, and \"$(PYTHON)\" is %s. Name another: make install PYTHON=..." \
		% sys.version.split()[0])'
	@echo 'Installing into .venv. The default build of torch is large; README.md says how to use a CPU build.'
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[ui,deploy,dev]'
	@touch $(STAMP)

demo: install ## Materialise everything of the problem `demo` and print its front
	$(BIN)/panacea materialize demo $(ARGS)

demo-small: install ## The same in its smallest setting
	$(BIN)/panacea materialize demo-small $(ARGS)

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

test: install ## Run the tests, but for those that take more than ten seconds each
	$(PYTEST) -m "not slow" $(ARGS)

test-all: install ## Run every test, as continuous integration does
	$(PYTEST) $(ARGS)

check: install ## Lint, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

dev: install ## Open the Dagster UI on this folder's instance
	$(BIN)/panacea dev $(ARGS)

clean: ## Remove .venv and caches; var/ (your database, models and reports) stays
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ -e var ]; then echo 'var/ stays: it holds the database, models and reports. Delete it yourself to start afresh.'; fi
