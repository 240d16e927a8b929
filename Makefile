CACHE := $(or $(DRAGON_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dragon)
VENV := $(CACHE)/venv-check
BIN := $(VENV)/bin
PACKAGES := dragon_core dragon_runtime edge_daemon cloud_peer dragon_cli link_emulator tests

.PHONY: help setup check test
help: ## List the targets
	@grep -E '^[a-z]+:.*##' Makefile

setup: ## Install what the checks and tests need
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/pip install -q numpy msgspec pydantic 'pydantic-settings[yaml]' pyyaml platformdirs prometheus-client fastapi uvicorn httpx anyio pytest pytest-asyncio pytest-timeout hypothesis ruff mypy import-linter types-PyYAML

check: setup ## Format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports

test: setup ## Run the unit tests
	$(BIN)/python -m pytest -q tests/unit
