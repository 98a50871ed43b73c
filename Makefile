# Everything a user or a developer does with Offkey. `make help` lists it.

PYTHON ?= python3
ARGS ?=
SHARE ?= 1
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo serve test torture lint bench bench-training clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.service ## See Offkey work: enroll and score synthetic machines (ARGS=--once ends by itself)
	@$(BIN)/offkey demo $(ARGS)

serve: $(VENV)/.service ## Run the service on http://127.0.0.1:8000, data in ./data
	@$(BIN)/offkey serve $(ARGS)

test: $(VENV)/.dev ## Run the whole test suite (ARGS="-k name" and so on go to pytest)
	@$(BIN)/pytest -n auto --dist loadgroup $(ARGS)

torture: $(VENV)/.dev ## Run the reliability tests at full length, an hour or so (SHARE=0.1 for a tenth of it)
	@OFFKEY_TORTURE=$(SHARE) $(BIN)/pytest -n auto --dist loadgroup tests/reliability $(ARGS)

lint: $(VENV)/.dev ## Check style, types, import directions, the English, and the Dockerfile
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python .ci/check_english.py
	@$(BIN)/hadolint docker/Dockerfile

bench: $(VENV)/.dev ## Measure the service, half an hour or so (needs the load generators `hey` and `wrk`)
	@$(BIN)/python benchmarks/encoder.py
	@$(BIN)/python benchmarks/decoding.py
	@$(BIN)/python benchmarks/search.py
	@$(BIN)/python benchmarks/stages.py
	@$(BIN)/python benchmarks/serving.py
	@$(BIN)/python benchmarks/overload.py
	@$(BIN)/python benchmarks/enrollment.py
	@$(BIN)/python benchmarks/machines.py
	@$(BIN)/python benchmarks/performance_plot.py
	@$(BIN)/python benchmarks/performance_page.py

bench-training: $(VENV)/.dev ## Measure a training step beside the networks alone (ARGS="CONFIG KEY=VALUE ...")
	@$(BIN)/python benchmarks/training_step.py $(ARGS)

clean: ## Remove what the other targets made, but not ./data
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Offkey needs Python 3.11 or newer; $(PYTHON) is older. Name one: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.service: pyproject.toml | $(VENV)/bin/python
	@echo "Installing Offkey into $(VENV): a minute or two the first time."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[service]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing Offkey with its training and test tools into $(VENV): a few minutes the first time."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[service,train,dev]'
	@touch $@ $(VENV)/.service
