# make demo: the runtime on a clip that needs no download.   make test: lint, types, all tests.
PYTHON ?= python3
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data

.PHONY: demo test lint types venv clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; found $$($(PYTHON) --version). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing. Try: apt-get install python3-venv"; exit 1; }

# .installed-* remember what is in the environment, so that a second call starts at once
$(VENV)/.installed-runtime: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@tools/fit_opencv.sh $(BIN)/python
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,dev]'
	@tools/fit_opencv.sh $(BIN)/python
	@touch $(VENV)/.installed-runtime $@

demo: $(VENV)/.installed-runtime
	$(BIN)/perception demo --out demo-out

venv: $(VENV)/.installed-dev

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

test: lint types
	$(BIN)/python -m pytest --data=$(DATA) -ra

clean:
	rm -rf $(VENV) demo-out
