# `make help` lists the targets. All commands run in .venv, which is created by the first target that needs it.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
# Number of test processes, one thread each. They start a hundred others, which share compiled modules.
JOBS ?= 2
# Kills of `make storm`, and the seed that draws them.
KILLS ?= 40
SEED ?= 0

.DEFAULT_GOAL := help

help:  ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## create .venv and install gradspike with its development tools

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gradspike needs Python 3.11 or newer; $(PYTHON) is older. Choose another: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(READY)

train: $(READY)  ## train MPD-AGL on the embedded digits and print the result
	@$(PY) -m gradspike train method=mpd_agl dataset=digits model=spiking_cnn

test: lint  ## linters, type checker and all tests that need neither a GPU nor several minutes
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS) --no-loadscope-reorder --durations=10

lint: $(READY)  ## check style, spelling, layers and types: ruff, codespell, import-linter, mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m codespell_lib
	@$(VENV)/bin/lint-imports --no-logo
	@$(PY) -m mypy

test-slow: $(READY)  ## tests that take minutes: complete training runs and their accuracy
	@$(PY) -m pytest -q -m 'slow and not nullgpu'

test-gpu: $(READY)  ## tests that need a CUDA device
	@$(PY) -m pytest -q -m gpu

test-null-gpu: $(READY)  ## CUDA code paths on a simulated device without kernels; skipped if it cannot be built
	@$(PY) -m pytest -q -m 'nullgpu and not slow'

compatibility: $(READY)  ## write docs/compatibility.md: which method runs with which neuron
	@$(PY) tests/helpers/compatibility.py --write

claims: $(READY)  ## write docs/claims.md from claims/ and the stored runs
	@$(PY) -m gradspike claims --out docs/claims.md

gpu-check: $(READY)  ## everything that needs a GPU in one command: checks, times, CIFAR-10 (8 minutes on an H100)
	@$(PY) benchmarks/gpu_check.py

site: $(READY)  ## build the documentation as a site in build/site
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "Open build/site/index.html. With a search: $(PY) -m http.server --directory build/site"

gallery: $(READY)  ## make docs/gallery.md and its pictures from small runs (minutes; needs Chromium)
	@$(PY) docs/site/gallery.py

bench: $(READY)  ## time per training step, compared with the ReLU twin
	@$(PY) benchmarks/step.py

bench-data: $(READY)  ## images/s of the loader, compared with torchvision and PIL; decoded event files/s
	@$(PY) benchmarks/data.py

size: $(READY)  ## time and memory of a tenth of the largest work (docs/reliability.md has the full size)
	@$(PY) benchmarks/size.py --scale 0.1

bench-ddp: $(READY)  ## time per training step on two processes of one CPU, and the share of communication
	@$(PY) benchmarks/ddp.py

storm: $(READY)  ## kill KILLS=40 training runs at random and resume them; full disks, flipped bits, lost files (SEED=0)
	@PYTHONPATH=tests $(PY) -m storm kills --kills $(KILLS) --seed $(SEED)
	@PYTHONPATH=tests $(PY) -m storm faults --seed $(SEED)

ranks: $(READY)  ## compare training on 2 and 4 processes with training on one, for every method
	@PYTHONPATH=tests $(PY) -m storm ranks

clean:  ## remove caches and build products; keep runs/, data/ and .venv
	@rm -rf .mypy_cache .pytest_cache .ruff_cache build src/*.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: help setup train test lint test-slow test-gpu test-null-gpu compatibility gpu-check site gallery bench bench-data bench-ddp size storm ranks clean
