.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat requirements/cpu.lock pyproject.toml Makefile | cksum | cut -d' ' -f1)
RUN ?= runs/demo

# Every worker process imports Ray and torch; without written bytecode each would compile them again, for ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test served lint bench notebooks clean

help: ## What can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP) ## An environment for a CPU in .venv, from the lock file

# torch comes first and with its own needs; the lock is complete and leaves out packages that are built for CUDA only.
$(STAMP): requirements/cpu.lock pyproject.toml Makefile
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile -r requirements/cpu.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-* && touch $@

demo: $(STAMP) ## The whole job on embedded defaults, CPU only, nothing to download
	$(BIN)/conceptcaps run -c configs/demo.yaml --run-dir $(RUN)
	$(BIN)/conceptcaps verify $(RUN)

test: $(STAMP) ## Lint, types and all tests that need no GPU
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not gpu and not isolated and not served" $(ARGS)

served: $(STAMP) ## Tests that take minutes: vLLM, Ray heads of their own, faults
	$(BIN)/python -m pytest -m served $(ARGS)

lint: $(STAMP) ## Format, and check style and types
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy

bench: $(STAMP) ## All benchmarks that need no data, into benchmarks/results/
	set -e; for script in $$(grep -l "__main__" benchmarks/*.py | grep -v -e tagsets -e lora -e vae -e scale_job -e authors_musicgen); do echo "== $$script"; $(BIN)/python $$script; done

notebooks: $(STAMP) ## Jupyter on the seven notebooks, over the demo's run
	CONCEPTCAPS_RUN=$(abspath $(RUN)) $(BIN)/jupyter lab --ip 127.0.0.1 notebooks

clean: ## Remove the environment, runs and caches
	rm -rf $(VENV) .envs runs .pytest_cache .ruff_cache .mypy_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
