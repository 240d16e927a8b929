CACHE := $(or $(DRAGON_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dragon)
VENV := $(CACHE)/venv-core
PYTHON := $(VENV)/bin/python

.PHONY: help setup check test
help: ## List the targets
	@grep -E '^[a-z]+:.*##' Makefile

setup: ## Install what the checks and tests need
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install -q numpy msgspec pytest pytest-asyncio pytest-timeout hypothesis ruff

check: setup ## Lint for errors
	$(PYTHON) -m ruff check --select E9,F63,F7 dragon_core tests

test: setup ## Run the unit tests of the core
	$(PYTHON) -m pytest -q tests/unit/core
