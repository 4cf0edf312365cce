# The tasks of this repository. `make` alone lists them.

# Python 3.11 to 3.13: the first of these that runs.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
# Another build of torch, for example: make test TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
BUF ?= 1.75.0
SAM ?= 1.170.0
ARCHITECTURE ?= arm64
DATA ?=
NAME ?=
JOBS ?= 2
SIZES ?=
ENGINES ?=
TEACHER ?=
STACK ?= magpie

bin := .venv/bin
buf := .tools/buf/node_modules/.bin/buf
sam := .tools/sam/bin/sam
pip := $(bin)/python -m pip install --quiet --disable-pip-version-check
protos := $(wildcard proto/magpie/v1/*.proto)
checked := shared local functions training tests
typed := shared local functions training
# Files of tests run beside each other, each on one thread: its servers are its own, on free ports.
one_thread := OMP_NUM_THREADS=1
side_by_side := -n $(JOBS) --dist loadfile

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-training proto proto-check proto-release lint format test test-fast demo bench bench-index train-default up down status \
	layer validate lock clean training-image

help: ## This list.
	@echo 'Magpie: visual product search. Start with `make demo`.'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  PYTHON=python3.12   the Python to use        (now: $(PYTHON))'
	@echo '  TORCH=...           what pip installs torch from, for test and train-default'

# --- One machine -----------------------------------------------------------------------------------------------

setup: .venv/.local ## Install what running Magpie on this machine needs (.venv, no torch).
	@:

setup-training: .venv/.training ## The same with what training needs (PyTorch; see TORCH below).
	@:

demo: setup ## Sample shop, index, search, evaluate, result page. DATA=folder: your own catalogue.csv, queries.csv.
	$(bin)/python -m local.demo $(if $(DATA),--data '$(DATA)')

up: setup ## Start Magpie on this machine.
	$(bin)/magpie up

down: setup ## Stop it. The data stays.
	$(bin)/magpie down

status: setup ## What runs, and where.
	$(bin)/magpie status

# --- Development -----------------------------------------------------------------------------------------------

test: .venv/.develop ## All tests, JOBS=2 files at once. MAGPIE_DATA=folder adds those on development photos.
	$(one_thread) $(bin)/python -m pytest $(side_by_side)

test-fast: .venv/.develop ## Unit and contract tests alone.
	$(one_thread) $(bin)/python -m pytest $(side_by_side) tests/unit tests/contract -m 'not slow'

lint: .venv/.develop ## ruff and mypy --strict.
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy $(typed)

format: .venv/.develop ## Let ruff mend what it can.
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

bench: .venv/.develop ## Benchmarks: tables, and .bench/NAME.json. NAME=search runs one.
	$(bin)/python -m tests.bench $(NAME)

bench-index: .venv/.bench ## Search engines beside each other: docs/index-benchmark.md. SIZES=10000,100000 ENGINES=compact,faiss-flat.
	$(bin)/python -m tests.bench.index $(if $(SIZES),--sizes $(SIZES)) $(if $(ENGINES),--engines $(ENGINES))

train-default: .venv/.develop ## Train the default bundle anew: MAGPIE_DATA=folder TEACHER=detector.onnx. Hours; resumable.
	@test -n "$$MAGPIE_DATA" -a -n '$(TEACHER)' || { echo 'needs MAGPIE_DATA=folder and TEACHER=detector.onnx'; exit 1; }
	test -f "$$MAGPIE_DATA/rendered/products.csv" || \
		$(bin)/python -m training.datasets.rendered --out "$$MAGPIE_DATA/rendered" --products 500 \
			--grounds "$$MAGPIE_DATA/clothing-top10/images/train"
	$(bin)/magpie train detection --recipe products --resume --teacher '$(TEACHER)'
	rm -rf .training/bundle-detector .training/bundle
	$(bin)/magpie export .training/runs/products --teacher '$(TEACHER)' --out .training/bundle-detector
	$(bin)/magpie train embedding --recipe default --resume
	$(bin)/magpie train embedding --recipe default-2 --resume
	$(bin)/magpie export .training/runs/default-2 --base .training/bundle-detector --out .training/bundle
	$(bin)/magpie release .training/bundle

lock: .venv/.develop ## Write constraints.txt from what is installed now.
	@echo '# Versions that were tested together. `make lock` writes this file; torch is chosen in the Makefile.' > constraints.txt
	$(bin)/python -m pip freeze --exclude-editable --exclude torch | grep -vE '^(nvidia|cuda|triton)' >> constraints.txt

clean: ## Remove caches and build outputs. Environments, local data and photos stay.
	rm -rf .aws-sam .pytest_cache .mypy_cache .ruff_cache .hypothesis layer/build
	find shared local functions training tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- Contracts -------------------------------------------------------------------------------------------------

proto: .venv/.develop ## Generate shared/magpie/v1 from proto/.
	$(call generate,shared)

proto-check: .venv/.develop $(buf) ## Generated code is current; protos are lint clean and break no released client.
	rm -rf .tools/generated && mkdir -p .tools/generated
	$(call generate,.tools/generated)
	diff -r --exclude=__init__.py --exclude=__pycache__ .tools/generated/magpie/v1 shared/magpie/v1
	@if [ -x $(buf) ]; then set -x; $(buf) lint proto && $(buf) breaking proto --against proto/released.binpb; fi

proto-release: $(buf) ## At a release: today's protos become what later ones must not break.
	$(buf) build proto --exclude-source-info -o proto/released.binpb

define generate
$(bin)/python -m grpc_tools.protoc -I proto \
	--plugin=protoc-gen-mypy=$(bin)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(bin)/protoc-gen-mypy_grpc \
	--python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) $(protos)
endef

# --- AWS -------------------------------------------------------------------------------------------------------

# No account is asked: the region is only a name that the checks need.
validate: $(sam) ## Check template.yaml (sam validate --lint).
	AWS_DEFAULT_REGION=eu-central-1 SAM_CLI_TELEMETRY=0 $(sam) validate --lint --template template.yaml

layer: $(sam) ## Build the functions and their layer as they are deployed. ARCHITECTURE=x86_64 for Intel and AMD.
	ARCHITECTURE=$(ARCHITECTURE) AWS_DEFAULT_REGION=eu-central-1 SAM_CLI_TELEMETRY=0 $(sam) build \
		--template template.yaml --parameter-overrides Architecture=$(ARCHITECTURE)

training-image: ## Build the training job's image and push it to the registry of STACK=magpie.
	@repository=$$(aws cloudformation describe-stacks --stack-name '$(STACK)' --output text \
		--query "Stacks[0].Outputs[?OutputKey=='TrainingRepository'].OutputValue") && \
	test -n "$$repository" || { echo 'stack $(STACK) has no training: deploy it with --parameter-overrides Training=on'; exit 1; }; \
	set -ex; \
	docker build --platform linux/amd64 --file training/Dockerfile --build-arg TORCH='$(TORCH)' --tag "$$repository:latest" .; \
	aws ecr get-login-password | docker login --username AWS --password-stdin "$${repository%%/*}"; \
	docker push "$$repository:latest"

# --- Tools, installed once -------------------------------------------------------------------------------------

.venv/bin/python:
	@test -n '$(PYTHON)' || { echo 'Magpie needs Python 3.11, 3.12 or 3.13: install one, or name it with PYTHON=...'; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.local: pyproject.toml constraints.txt | .venv/bin/python
	$(pip) --constraint constraints.txt --editable '.[local]'
	@touch $@

.venv/.training: .venv/.local
	$(pip) $(TORCH)
	$(pip) --constraint constraints.txt --editable '.[local,train]'
	@touch $@

.venv/.develop: .venv/.training
	$(pip) --constraint constraints.txt --editable '.[local,train,test]'
	@touch $@

.venv/.bench: .venv/.develop
	$(pip) --constraint constraints.txt --editable '.[local,train,test,bench]'
	@touch $@

# buf is published on npm. Without npm its checks are left out, except in CI, where they must run.
$(buf):
	@if command -v npm >/dev/null; then \
		npm install --silent --no-fund --no-audit --prefix .tools/buf @bufbuild/buf@$(BUF); \
	elif [ -n "$$CI" ]; then \
		echo 'buf needs npm, and CI must not skip it'; exit 1; \
	else \
		echo 'no npm here: buf lint and buf breaking are SKIPPED'; fi

# An environment of its own: the SAM CLI pins boto3.
$(sam): | .venv/bin/python
	$(bin)/python -m venv .tools/sam
	.tools/sam/bin/python -m pip install --quiet --disable-pip-version-check aws-sam-cli==$(SAM)
