PYTHON ?= python3
BIN := .venv/bin
MAKEFLAGS += --no-print-directory
# Flags for pytest, e.g. `make test ARGS="-k minhash -x"`.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup sample run test test-all bench check fmt clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/stamp ## Make .venv and install dataselect into it (again only when pyproject.toml changes)
	@:

.venv/stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "dataselect needs Python 3.10 or newer; name one with make PYTHON=python3.x")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (a minute or two the first time) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e ".[dev]"
	@touch $@

sample: .sample/README.md ## Make the sample corpus in .sample/ out of the installed packages' own text
	@:

.sample/README.md: | .venv/stamp
	@$(BIN)/python scripts/make_sample.py .sample

run: setup sample ## The quick start: train a small quality model, run configs/quickstart.yaml
	@if [ -f .sample/quality.bin ]; then :; \
	elif $(BIN)/python -c 'import fasttext' 2>/dev/null; then \
	    echo "Training .sample/quality.bin (model card: .sample/quality.bin.json) ..." >&2; \
	    $(BIN)/dataselect train --positive .sample/hq.jsonl --negative .sample/lq.jsonl \
	        --out .sample/quality.bin --dim 16 --bucket 200000 --epoch 25 >/dev/null; \
	else \
	    echo "No wheel of fastText for this Python and platform: the run leaves out the quality stage." >&2; \
	    echo "(With a C++ compiler: $(BIN)/pip install -e '.[train]')" >&2; \
	fi
	@$(BIN)/dataselect run configs/quickstart.yaml

test: setup ## The tests, without the slow ones
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" $(ARGS)

test-all: .venv/stamp-all ## All tests, also those that need Ray and object stores (installs them)
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

.venv/stamp-all: pyproject.toml .venv/stamp
	@echo "Installing Ray, s3fs, obstore, gcsfs and their endpoints into .venv ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e ".[dev,ray,s3,gs,http,endpoints]" && touch $@ \
	    || echo "Not all of them exist for this Python and platform: their tests are skipped." >&2

bench: setup sample ## Measure speed and memory end to end (make bench ARGS="--help")
	@PYTHONPATH=scripts $(BIN)/python -m bench $(ARGS)

check: setup ## Lint, format and types; edits nothing
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary

fmt: setup ## Fix what ruff can fix, and format
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

clean: ## Remove the sample, its outputs and all caches (not .venv)
	@rm -rf .sample build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
