# `make help` lists what there is. Everything runs from .venv, which `make setup` builds from requirements.lock.
SHELL := /bin/sh
PROFILE ?= quick
# quick and laptop are of two cores, a cell on each; elsewhere a cell takes the whole machine unless told otherwise
JOBS ?= $(if $(filter quick laptop,$(PROFILE)),2,1)
BIN := $(CURDIR)/.venv/bin
UV := .uv/bin/uv
SYNC := --python .venv/bin/python --require-hashes requirements.lock
S3PRL := --python .s3prl/bin/python --require-hashes tests/interop/s3prl.lock
LOCKS := requirements-uv.lock requirements.lock pyproject.toml
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) -c \
	'import sys; (3, 11) <= sys.version_info < (3, 14) and print("$(p)")' 2>/dev/null)))
export PATH := $(BIN):$(PATH)
export JUPYTER_PREFER_ENV_PATH := 1
export WANDB_ERROR_REPORTING := false
# another project's environment must not be mixed in
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX
# where a container forbids bytecode, each process compiles the libraries anew: torch alone takes 4.2 s to import, not 1.7
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup install repro test test-slow test-interop bench lint report lock

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 18

setup: ## the locked environment in .venv, only when a lock changed
	@cat $(LOCKS) | cksum | cmp -s - .venv/built-from || $(MAKE) --no-print-directory install

install:
	@test -n "$(PYTHON)" || { echo "sslrepro needs Python 3.11, 3.12 or 3.13 as python3 (or make PYTHON=/path/to/python)" >&2; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version) from requirements.lock"
	@rm -f .venv/built-from
	@$(PYTHON) -m venv --clear .uv || { echo "python's venv module is missing (Debian: apt install python3-venv)" >&2; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@test -x .venv/bin/python || $(UV) venv --quiet --no-project --python .uv/bin/python .venv
	@$(UV) pip sync --quiet $(SYNC) || { echo "Trying again with the system's certificates"; $(UV) pip sync --quiet --system-certs $(SYNC); }
	@$(UV) pip install --quiet --python .venv/bin/python --no-deps --offline --editable .
	@cat $(LOCKS) | cksum > .venv/built-from

repro: setup ## the pipeline on PROFILE (quick), JOBS=N cells side by side; FORCE=1 overwrites a params.yaml edited by hand
	@python -m sslrepro.pipeline.profile write $(PROFILE) $(if $(FORCE),--force)
	@python -m sslrepro.pipeline.jobs $(PROFILE) $(JOBS)
	@python -m sslrepro.pipeline.profile where

test: setup ## the tests (those of minutes are in test-slow and test-interop): unit, parity, pipeline, and every notebook
	@OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --nbval-lax --nbval-current-env \
		--nbval-cell-timeout 600 tests notebooks

test-slow: setup ## every cell of the profile paper at its real size, one update each: minutes
	@OMP_NUM_THREADS=2 python -m pytest -m slow tests

test-interop: setup ## a SUPERB task by S3PRL itself, in an environment of its own (.s3prl, 7 GB); cells on a real SLURM (as root)
	@test -x .s3prl/bin/python || $(UV) venv --quiet --no-project --python .venv/bin/python .s3prl
	@$(UV) pip sync --quiet $(S3PRL) 2>/dev/null || $(UV) pip sync --quiet --system-certs $(S3PRL)
	@OMP_NUM_THREADS=1 python -m pytest tests/interop/superb.py tests/pipeline/slurm.py

bench: setup ## ours beside transformers, torchaudio and the floor: a table and benchmarks/results/ (ARGS="--models small" for a part)
	@python -m benchmarks.engine $(ARGS)

lint: setup ## ruff, and no outputs in notebooks
	@ruff check . && ruff format --check . && nbstripout --verify --keep-id notebooks/*.ipynb

report: setup ## the pages of the last run again: report/index.html
	@dvc repro --single-item report
	@python -m sslrepro.pipeline.profile where

lock: setup ## resolve pyproject.toml again into requirements.lock and environment.yml
	@$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --group dev \
		pyproject.toml -p 3.11 -o requirements.lock
	@$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
		tests/interop/s3prl.in -p 3.11 -o tests/interop/s3prl.lock
	@python -m sslrepro.pipeline.environment > environment.yml
