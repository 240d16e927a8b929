PYTHON_FILES := dragon_core dragon_runtime edge_daemon cloud_peer dragon_cli operator/dragon_operator link_emulator simulator evaluation local_cluster bench tests scripts
BIN := .venv/bin
# Where the cloud of the demo has its models: llama, in its own process, or triton, on a real Triton server.
ENGINE ?= llama

.PHONY: help setup demo test check bench images cluster cluster-down cluster-test
.DEFAULT_GOAL := help

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

setup: ## Install what the other targets need (into .venv; builds are kept in the user's cache)
	@scripts/setup

demo: setup ## Start both sides on this machine, ask questions that need both, show the answers, stop
	@$(BIN)/dragonctl demo --engine $(ENGINE)

test: setup ## Run every test this machine can run and list what it could not run
	@$(BIN)/python scripts/run_tests.py $(TEST_ARGUMENTS)

check: setup ## Format, lint, types, import contracts and the fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --output-format concise .
	$(BIN)/mypy $(PYTHON_FILES)
	$(BIN)/mypy triton_models/causal_lm
	$(BIN)/mypy triton_models/embedder
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n auto -m "not slow" tests/unit

images: setup ## Build the container images with docker or buildah
	@scripts/images

cluster: setup ## Leave a Kubernetes with one node here, with the example deployment Ready (as root; 20 minutes the first time)
	@scripts/deploy_cluster

cluster-down: ## Remove that Kubernetes and every trace of it
	@scripts/cluster down

cluster-test: setup ## Test the whole product in one: a device outside, killed pods, a model change, removal
	@$(BIN)/python scripts/run_tests.py --tier cluster

bench: setup ## Measure what the documentation states (an hour, on a machine with nothing else to do)
	$(BIN)/python -m bench.core
	$(BIN)/python -m bench.throughput
	$(BIN)/python -m bench.triton
	$(BIN)/python -m bench.protocol
	$(BIN)/python -m evaluation.rules
