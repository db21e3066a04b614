PYTHON ?= python3
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
WORKERS ?= auto
# pip compiles nothing here (--no-compile), so whatever is imported first must keep what it compiled:
# otherwise every process that a test starts compiles torch anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint types docs wheel venv lowest clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; found $$($(PYTHON) --version). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing. Try: apt-get install python3-venv"; exit 1; }

# .installed-* remember what is in the environment, so that a second call starts at once
$(VENV)/.installed-runtime: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e .
	@tools/fit_opencv.sh $(BIN)/python
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[all,dev]'
	@tools/fit_opencv.sh $(BIN)/python
	@touch $(VENV)/.installed-runtime $@

demo: $(VENV)/.installed-runtime ## run the shipped network on a synthetic street; no GPU, no download of data
	$(BIN)/perception demo --out demo-out

venv: $(VENV)/.installed-dev ## make .venv with everything installed

lint: $(VENV)/.installed-dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## mypy
	$(BIN)/mypy

docs: $(VENV)/.installed-dev ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: $(VENV)/.installed-dev ## build wheel and sdist into dist/
	$(BIN)/python -m build --outdir dist .

test: lint types docs ## lint, types, documentation and all tests
	# one thread a worker, and no worker spins while it waits: otherwise they take each other's cores;
	# tests/conftest.py knows a better order of files than their number of tests
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --data=$(DATA) -ra -n $(WORKERS) --dist loadfile \
		--no-loadscope-reorder

lowest: ## smoke test of the runtime with the lowest versions that pyproject.toml allows
	@$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
		-e '.[web,rerun,report]' 'pytest>=8' 'pytest-timeout>=2.3' 'hypothesis>=6.100' 'jsonschema>=4.20'
	@tools/fit_opencv.sh .venv-lowest/bin/python
	.venv-lowest/bin/python -m pytest -p no:cacheprovider tests/contracts/test_runtime_contracts.py \
		tests/runtime/test_demo.py tests/runtime/test_sinks.py tests/runtime/test_sources.py

clean: ## remove what the other targets made
	rm -rf $(VENV) .venv-lowest demo-out site dist build
