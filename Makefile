# Everything a person types is a target here; `make help` lists them.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.8

.PHONY: help setup demo test lint types lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# uv, not pip: pip may pair torch and torchvision from different builds, and then neither imports.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "expected Python >= 3.11, got $$($(PYTHON) -V); set PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

setup: $(STAMP)  ## create .venv with every pinned dependency

lock: $(STAMP)  ## resolve requirements.lock anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra mlflow --universal --generate-hashes \
	  --no-emit-index-url --no-header --python-version 3.11 --upgrade -o requirements.lock --quiet

clean:  ## remove the environment and what runs left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache demo
