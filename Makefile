# Each target installs into .venv first, and again only when the requirements change.
# Another interpreter: make install PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := "$(CURDIR)/$(VENV)/bin"
INSTALLED := $(VENV)/.installed
WITH_EXTRAS := $(VENV)/.installed_with_extras

SONG ?=  # a song or a folder of songs, for quickstart

.DEFAULT_GOAL := help
.PHONY: help install quickstart test lint docs bench

help:  ## List the targets
	@grep -E '^[a-z]+: .*## ' $(MAKEFILE_LIST) | \
		awk -F ':.*## ' '{ printf "  make %-11s %s\n", $$1, $$2 }'

install: $(INSTALLED)  ## Install the package into .venv

$(INSTALLED): setup.py pyproject.toml ms_sincresnet/nnet/backends/simd.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
		"Python 3.10 or newer is needed; $(PYTHON) is " + sys.version.split()[0] + \
		". Name a newer one: make install PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(WITH_EXTRAS): $(INSTALLED)  # all extras, test tools and linters
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

quickstart: install  ## Train on synthetic music, then classify SONG=… of yours
	@echo "Training a small network on synthetic music, to show that training works:"
	cd recipes/GTZAN && $(BIN)/python train.py hparams/quickstart.yaml
ifneq ($(strip $(SONG)),)
	@echo "Genres of your music, by the model that comes with the package:"
	$(BIN)/ms-sincresnet classify $(SONG)
else
	@echo "Training works. For genres of your music: make quickstart SONG=~/Music"
endif

test: lint  ## Run the linters, all tests and the examples in docstrings
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(WITH_EXTRAS)  ## Check style, types, imports, yaml and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict .
	$(BIN)/codespell
	$(BIN)/lint-imports
	$(BIN)/deptry ms_sincresnet beetsplug
	$(BIN)/mypy

docs: install  ## Build the documentation as a site: docs/_build/html/index.html
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . docs/_build/html

bench: install  ## Measure time and memory against plain PyTorch and other libraries
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python benchmarks/run.py
