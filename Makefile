# `make` lists the targets. What a person types here is what CI types.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
bin := .venv/bin
# A private uv if the machine lacks it: plain pip would install a torch that torchvision cannot load.
UV := $(shell command -v uv || echo .uv/bin/uv)
# These import torch; everything else, in particular the local stack, is tested without it.
TORCH_TESTS := tests/training tests/tools tests/experiments tests/bench/test_torch.py $(addprefix tests/model/test_,network.py export.py restore.py)
# The SageMaker SDK, in a separate environment.
LAUNCH_TESTS := tests/launch

# Docker and debootstrap build images, chromium attacks the local stack, the AWS CLI and curl use it.
SYSTEM_PACKAGES := awscli ca-certificates chromium curl debootstrap docker.io git socat

.PHONY: system-packages contracts help venv train-venv demo demo-retrain up down wipe lint test bench

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

venv: .venv/demo.installed ## Make .venv for the demo, then: source .venv/bin/activate

train-venv: .venv-train/installed ## Make .venv-train with torch (5 GB)

demo: venv ## Start a stack and count sample photographs; ABID=../shared/abid takes real ones
	@$(bin)/bintally demo

demo-retrain: venv train-venv ## Retrain on labelled photographs and deploy the better model (5 GB for torch)
	@$(bin)/bintally demo-retrain

up: venv ## Start AWS on this machine, deploy the stack, release the shipped model
	@$(bin)/bintally up

down: venv ## Stop it; its state is kept
	@$(bin)/bintally down

wipe: venv ## Stop it and remove its state
	@$(bin)/bintally down --wipe

lint: .venv/test.installed .venv-train/test.installed ## Check style, types and the template
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy functions
	$(bin)/mypy --python-executable .venv-train/bin/python model
	AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 $(bin)/sam validate --lint --template template.yaml
	$(bin)/cfn-lint template.yaml

contracts: .venv/test.installed ## Check that imports respect the borders between the folders
	PYTHONPATH=functions:localsagemaker/src $(bin)/lint-imports

test: lint .venv-launch/installed ## Install the tests' requirements and run all tests
	status=0; \
	$(bin)/python -m pytest $(TORCH_TESTS:%=--ignore=%) $(LAUNCH_TESTS:%=--ignore=%) || status=$$?; \
	.venv-train/bin/python -m pytest $(TORCH_TESTS) || status=$$?; \
	.venv-launch/bin/python -m pytest $(LAUNCH_TESTS) || status=$$?; \
	exit $$status

system-packages: ## Install the Debian packages that tests need, as root
	@apt-get update -qq
	@DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null

bench: .venv/test.installed .venv-train/installed ## Measure serving, the whole path and the count function
	@$(bin)/bintally bench

.PHONY: docs notebook
docs: .venv/docs.installed ## Build the documentation site in .runs/site
	@NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --strict --quiet
	@echo 'Open .runs/site/index.html'

notebook: train-venv .venv-launch/notebook.installed up ## Run the notebook on the local stack (5 GB for torch, 0.8 GB for the SageMaker SDK)
	@mkdir -p .runs
	@eval "$$($(bin)/bintally env)" && .venv-launch/bin/jupyter-execute --output=../.runs/bin-object-counting.ipynb notebooks/bin-object-counting.ipynb

.uv/bin/uv:
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv uv 2>/dev/null || \
	  { $(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check uv; }

# --seed: `sam build` needs pip in the environment.
.venv/bin/python: | $(UV)
	@$(UV) venv --quiet --seed --allow-existing --no-python-downloads --python "$$(command -v $(PYTHON))" .venv

.venv/demo.installed: requirements/demo.txt pyproject.toml localsagemaker/pyproject.toml | .venv/bin/python
	@$(UV) pip install --quiet --python $(bin)/python -r requirements/demo.txt --editable . --editable ./localsagemaker
	@touch $@
	@echo 'Ready. To use the bintally command here: source .venv/bin/activate'

.venv/test.installed: requirements/test.txt .venv/demo.installed
	@$(UV) pip install --quiet --python $(bin)/python -r requirements/test.txt
	@touch $@

.venv/docs.installed: requirements/docs.txt .venv/demo.installed
	@$(UV) pip install --quiet --python $(bin)/python -r requirements/docs.txt
	@touch $@

.venv-launch/notebook.installed: requirements/notebook.txt .venv-launch/installed
	@$(UV) pip install --quiet --python .venv-launch/bin/python -r requirements/notebook.txt
	@touch $@

.venv-train/test.installed: requirements/train-test.txt .venv-train/installed
	@$(UV) pip install --quiet --python .venv-train/bin/python -r requirements/train-test.txt
	@touch $@

.venv-train/installed .venv-launch/installed: .venv-%/installed: requirements/%.txt | $(UV)
	@$(UV) venv --quiet --allow-existing --no-python-downloads --python "$$(command -v $(PYTHON))" .venv-$*
	@$(UV) pip install --quiet --python .venv-$*/bin/python -r requirements/$*.txt
	@touch $@
