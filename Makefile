# `make` lists the targets. What a person types here is what CI types.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Python keeps what it compiles, whatever the environment says: starting the emulator takes 1 s of a processor, not 4.
export PYTHONDONTWRITEBYTECODE :=
PYTHON ?= python3
bin := .venv/bin
# A private uv if the machine lacks it: plain pip would install a torch that torchvision cannot load.
UV := $(shell command -v uv || echo .uv/bin/uv)
# These import torch; everything else, in particular the local stack, is tested without it.
TORCH_TESTS := tests/training tests/tools tests/experiments tests/bench/test_torch.py $(addprefix tests/model/test_,network.py export.py restore.py)
TORCH_TYPES := experiments tools training $(addprefix bench/,eager_server.py training_loop.py training_speed.py) \
  $(addprefix model/,export.py network.py restore.py) $(TORCH_TESTS)
# The SageMaker SDK from outside, in an environment of its own.
LAUNCH_TESTS := tests/launch
ELSEWHERE := $(TORCH_TESTS:%=--ignore=%) $(LAUNCH_TESTS:%=--ignore=%)
UNIT_TESTS := tests/bench tests/cli tests/docs tests/functions tests/model tests/template localsagemaker/tests
MINUTES ?= 5
# Tests of a stack wait more than they compute: four workers keep two cores busy. Others compute.
WORKERS ?= 4
PARALLEL = --numprocesses $(WORKERS) $(GROUPED)
# In the order of tests/conftest.py, and not the groups of most tests first.
GROUPED := --dist loadgroup --no-loadscope-reorder --durations 25
units coverage: WORKERS := 2
# Of detect-secrets: what looks like a key by its form. Digests and texts about passwords look like secrets by entropy and by name.
SECRETS := --disable-plugin HexHighEntropyString --disable-plugin Base64HighEntropyString --disable-plugin KeywordDetector \
  --exclude-secrets 'AKIA[A-Z0-9]*EXAMPLE[A-Z0-9]*'
SOON := not long and not upstream and not upgrade and not guard

on_aws = $(bin)/bintally --stack "$(or $(STACK),$(error STACK is missing: make $@ STACK=… REGION=…))" \
  --region "$(or $(REGION),$(error REGION is missing: make $@ STACK=… REGION=…))" $(if $(PROFILE),--profile "$(PROFILE)")

# Docker and debootstrap build images, Compose runs one for the SageMaker SDK, Chromium attacks the local stack, the AWS CLI and curl use it.
SYSTEM_PACKAGES := awscli ca-certificates chromium-headless-shell curl debootstrap docker-compose docker.io git socat

.PHONY: deploy destroy system-packages template help venv train-venv demo demo-retrain up down wipe lint contracts types types-train check grants removals units test test-stack test-torch test-style test-long soak fuzz upstream upgrade scan audit guard coverage docs notebook bench sbom

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

venv: .venv/demo.installed ## Make .venv for the demo, then: source .venv/bin/activate

train-venv: .venv-train/installed ## Make .venv-train with torch (5 GB)

demo: venv ## Start a stack and count sample photographs; ABID=FOLDER takes real ones (bintally fetch-abid)
	@$(bin)/bintally demo

demo-retrain: venv train-venv ## Retrain on labelled photographs and deploy the better model (5 GB for torch)
	@$(bin)/bintally demo-retrain

up: venv ## Start AWS on this machine, deploy the stack, release the shipped model
	@$(bin)/bintally up

down: venv ## Stop it; its state is kept
	@$(bin)/bintally down

wipe: venv ## Stop it and remove its state
	@$(bin)/bintally down --wipe

deploy: venv ## Deploy to AWS: STACK=… REGION=… [EMAIL=…] [PROFILE=…] [ENVIRONMENT=staging|production] [SET="Name=value …"] [DRY_RUN=1]
	@$(on_aws) stack deploy $(if $(ENVIRONMENT),--environment "$(ENVIRONMENT)") $(if $(EMAIL),--email "$(EMAIL)") \
	  $(if $(ROLE),--role "$(ROLE)") $(SET:%=--set "%") $(if $(DRY_RUN),--dry-run)

destroy: venv ## Remove a stack from AWS: STACK=… REGION=… [PROFILE=…] [DATA=keep|delete] [IMAGES=1] [DRY_RUN=1]
	@$(on_aws) stack destroy $(DATA:%=--%-data) $(if $(IMAGES),--images) $(if $(DRY_RUN),--dry-run)

lint: contracts types ## Check style, imports, and the types of what needs no torch
	$(bin)/ruff check .
	$(bin)/ruff format --check .

template: .venv/test.installed ## Check the template with SAM alone; tests/template translate and lint it too
	AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 $(bin)/sam validate --template template.yaml

types: .venv/test.installed ## Check the types of all that needs no torch
	$(bin)/mypy $(TORCH_TYPES:%=--exclude ^%)

types-train: .venv/test.installed .venv-train/test.installed ## Check the types of what imports torch
	$(bin)/mypy --cache-dir .mypy_cache/train --python-executable .venv-train/bin/python $(TORCH_TYPES)

contracts: .venv/test.installed ## Check that imports respect the borders between the folders
	PYTHONPATH=functions:localsagemaker/src $(bin)/lint-imports

check: .venv/test.installed ## Lint, and the tests that need neither a stack nor torch: while you work
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint units

units: .venv/test.installed
	$(bin)/python -m pytest $(PARALLEL) -m "not stack and not slow and $(SOON)" $(UNIT_TESTS) $(TORCH_TESTS:%=--ignore=%)

test: ## Install what tests need and run all but the long ones
	@mkdir -p .runs
	@for part in torch style; do echo "not run: $$part" >.runs/$$part.log; done
	@$(MAKE) --no-print-directory --jobs 3 --keep-going test-stack test-torch test-style || status=$$?; \
	cat .runs/torch.log .runs/style.log; exit $${status:-0}

# Tests of the stack wait more than they compute; style, types and torch compute in the meantime.
test-stack: .venv/test.installed
	$(bin)/python -m pytest $(PARALLEL) -m "$(SOON)" $(ELSEWHERE)

# The allocator's settings are those of training/Dockerfile: a third less time in the kernel.
test-torch: .venv-train/test.installed
	@OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8589934592 .venv-train/bin/python -m pytest --timeout 900 \
	  --numprocesses 2 $(GROUPED) -m "$(SOON)" $(TORCH_TESTS) >.runs/torch.log 2>&1

test-style: .venv/test.installed .venv-train/test.installed
	@$(MAKE) --no-print-directory lint types-train >.runs/style.log 2>&1

system-packages: ## Install the Debian packages that tests need, as root
	@apt-get update -qq
	@DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null

test-long: .venv/test.installed .venv/docs.installed .venv-train/test.installed .venv-launch/notebook.installed ## Tests that are long by nature and change seldom: images, notebook, site, learning, several hosts, the SageMaker SDK
	$(bin)/python -m pytest --durations=25 -m long $(ELSEWHERE)
	.venv-train/bin/python -m pytest --durations=25 -m long $(TORCH_TESTS)
	.venv-launch/bin/python -m pytest --durations=25 $(LAUNCH_TESTS)

soak: .venv/test.installed ## Photographs, records and recounts while things break, and account for each; PHOTOGRAPHS=3000 TIMES=3 FAULTS=… SEED=… (root for disk-full)
	$(bin)/python -m bench.soak --faults $(or $(FAULTS),all) $(PHOTOGRAPHS:%=--photographs %) $(TIMES:%=--times %) $(SEED:%=--seed %)

fuzz: .venv/test.installed ## Search for inputs that break something, MINUTES (5) for each kind
	FUZZ_MINUTES=$(MINUTES) $(bin)/python -m pytest -m fuzz --capture=no --timeout=0 tests/functions tests/model/test_fuzz.py localsagemaker/tests

upstream: .venv/test.installed ## Show the gaps of ministack itself: when its version changes
	$(bin)/python -m pytest -m upstream tests/local

upgrade: .venv/test.installed ## Update a stack of 0.1.0 to this version while photographs arrive: when template or items change
	$(bin)/python -m pytest -m upgrade tests/stack/test_upgrade.py

scan: | $(UV) ## Look for secrets in files, and at the template by checkov's rules
	@git ls-files -z | xargs -0 $(UV) tool run --quiet --python 3.11 --from detect-secrets@1.5.0 detect-secrets-hook $(SECRETS) || status=$$?; \
	$(UV) tool run --quiet --python 3.11 checkov@3.3.30 --config-file .checkov.yaml || status=$$?; exit $${status:-0}

audit: scan ## Look for known weaknesses of pinned versions besides
	@for set in functions/requirements.txt model/requirements.txt requirements/*.txt; do \
	  $(UV) tool run --quiet pip-audit@2.10.1 --no-deps --disable-pip --requirement $$set || status=$$?; \
	done; exit $${status:-0}

guard: .venv/test.installed ## Check the template by AWS Control Tower's rules with cfn-guard (needs npm, x86-64 Linux)
	@rm -rf .runs/guard; mkdir -p .runs/guard; cd .runs/guard; \
	npm pack --silent @cdklabs/cdk-validator-cfnguard@0.0.62 >/dev/null && tar -xzf *.tgz
	$(bin)/python -m pytest -q -m guard tests/template/test_guard.py

grants: .venv/test.installed .venv-train/installed ## List what the template grants and no test of the stack uses: when policies change
	@rm -f .runs/grants.txt; mkdir -p .runs; status=0; \
	BINTALLY_GRANTS=$(abspath .runs/grants.txt) $(bin)/python -m pytest $(PARALLEL) -m "$(SOON)" tests/stack || status=$$?; \
	$(bin)/python -m local.grants .runs/grants.txt || status=$$?; exit $$status

removals: .venv/test.installed .venv-train/installed ## Take each granted action that `make grants` saw used away in turn: a test must break (two hours)
	$(bin)/python -m tests.removals .runs/grants.txt

coverage: .venv/test.installed ## Say which lines `make check` does not reach
	$(bin)/python -m pytest $(PARALLEL) -m "not stack and $(SOON)" $(UNIT_TESTS) $(TORCH_TESTS:%=--ignore=%) \
	  --cov=functions --cov=cli --cov=local --cov=model --cov=localsagemaker --cov-report=term:skip-covered

sbom: | $(UV) ## Write what the two images contain of Python's packages to .runs/sbom (CycloneDX)
	@mkdir -p .runs/sbom
	@for image in serve:model/requirements.txt train:requirements/train.txt; do \
	  $(UV) tool run --quiet --no-python-downloads --python "$$(command -v $(PYTHON))" --with-requirements requirements/sbom.txt --from cyclonedx-bom \
	    cyclonedx-py requirements "$${image#*:}" --output-reproducible --output-file ".runs/sbom/$${image%%:*}.cdx.json"; done

bench: .venv/test.installed .venv-train/installed ## Measure serving, the whole way and the count function
	@$(bin)/bintally bench

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
