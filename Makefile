# Everything a person types is a target here; `make help` lists them.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.8
JOBS ?= 2
KERMANY ?= ../shared/data/kermany-cxr
WORK ?= runs/kermany
COVID_CXR ?= ../shared/data/covid-cxr
COVID_CT ?= ../shared/data/covid-ct
MR_DICOM ?= ../shared/data/mr-dicom
LUNGS ?= runs/lungs
COVID ?= runs/covid
TRUST ?= runs/trust
SEED ?= 1

.PHONY: help setup web demo test lint types layers kermany zoo zoo-guided lungs zoo-lungs phantom-organs losses guides cardiac covid audits planted leakage lime sanity localisation conformal retrieval index-speed mil workstation service service-faults node node-faults node-soak bombs mutants deid bench lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# uv, not pip: pip may pair torch and torchvision from different builds, and then neither imports.
$(STAMP): requirements.lock pyproject.toml hatch_build.py web/package-lock.json
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "expected Python >= 3.11, got $$($(PYTHON) -V); set PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --system-certs --quiet --compile-bytecode --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --system-certs --quiet --no-deps --no-build-isolation -e .
	touch $@

setup: $(STAMP)  ## create .venv with every pinned dependency

web: $(STAMP)  ## build the pages of the workstation anew
	$(BIN)/python hatch_build.py

demo: $(STAMP)  ## make studies, train on them, evaluate, read; OPEN=1 opens the reports
	@$(BIN)/wetread demo $(if $(OPEN),--open)

lint: $(STAMP)  ## ruff: rules and formatting
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict over src, tests and benchmarks
	@$(BIN)/mypy

layers: $(STAMP)  ## who may import whom, and the budgets for size and complexity
	@$(BIN)/python -m pytest -q tests/architecture

# Two threads in each of two processes is ~19 times slower than one: OMP_NUM_THREADS=1.
test: $(STAMP)  ## everything that CI runs: lint, types, layers, all tests
	@export OMP_NUM_THREADS=1
	stage() {
	  local name=$$1 begin=$$SECONDS
	  shift
	  echo "== $$name"
	  "$$@" || { echo "== $$name failed after $$((SECONDS - begin)) s" >&2; exit 1; }
	  echo "== $$name: $$((SECONDS - begin)) s"
	}
	stage "lint" $(BIN)/ruff check .
	stage "format" $(BIN)/ruff format --check .
	stage "types" $(BIN)/mypy & types=$$!  # one core each
	stage "layers" $(BIN)/python -m pytest -q tests/architecture
	wait $$types
	echo "== tests"
	$(BIN)/python -m pytest -q -n $(JOBS) --ignore tests/architecture

# The figures of results/, each by one command. KERMANY names the folder with train/ and test/.
kermany: $(STAMP)  ## results/kermany.csv: three seeds of the recipe, baselines, published peers (hours)
	$(BIN)/python -m benchmarks.kermany --data $(KERMANY) --work $(WORK) --out results/kermany.csv

zoo: $(STAMP)  ## put seed SEED of `make kermany` on the shelf of shipped readers
	$(BIN)/python -m recipes.ship $(WORK)/chest-pneumonia-seed$(SEED) --data $(WORK)/dataset

zoo-guided: $(STAMP)  ## put the reader of `make guides` that is shown the lungs alone on that shelf
	rm -rf $(WORK)/guided-test
	$(BIN)/wetread evaluate $(WORK)/chest-pneumonia-mask-seed0 --data $(WORK)/dataset --split test --hide lungs \
	  --out $(WORK)/guided-test
	$(BIN)/python -m recipes.ship $(WORK)/chest-pneumonia-mask-seed0 --name chest-pneumonia-lungs \
	  --evaluation $(WORK)/guided-test --recipe recipes/chest-pneumonia-lungs.toml --data $(WORK)/dataset

lungs: $(STAMP)  ## results/lungs.csv: the lung segmenter in five folds, on children, and its speed (an hour)
	$(BIN)/python -m benchmarks.lungs --data $(COVID_CXR) --children $(KERMANY)/train --work $(LUNGS) --out results/lungs.csv

zoo-lungs: $(STAMP)  ## put the segmenter of `make lungs` on the shelf of shipped readers
	$(BIN)/python -m recipes.ship $(LUNGS)/lungs --name lungs --folds $(LUNGS)/lungs-folds --recipe recipes/lungs.toml

phantom-organs: $(STAMP)  ## results/phantom_organs.csv: lungs, heart and their ratio on unseen sources
	$(BIN)/python -m benchmarks.phantom_organs --out results/phantom_organs.csv

losses: $(STAMP)  ## results/losses.csv: every segmentation loss, three seeds, one plot (an hour)
	$(BIN)/python -m benchmarks.losses --data $(COVID_CXR) --work $(LUNGS) --out results/losses.csv

guides: $(STAMP)  ## results/guides.csv: readers shown the whole film or the lungs alone (an hour)
	$(BIN)/python -m benchmarks.guides --data $(KERMANY) --work $(WORK) --out results/guides.csv

cardiac: $(STAMP)  ## results/cardiac.csv: cardiomegaly by ratio and by classifier, and where they agree (ten minutes)
	$(BIN)/python -m benchmarks.cardiac --out results/cardiac.csv

covid: $(STAMP)  ## results/covid.csv: the accuracy of the articles, and the audit that fails it (half an hour)
	$(BIN)/python -m benchmarks.covid --children $(KERMANY) --adults $(COVID_CXR) --work $(COVID) --out results/covid.csv

audits: $(STAMP)  ## results/audits.csv: the audit of the shipped readers and of the reader of `make covid` (half an hour)
	$(BIN)/python -m benchmarks.audits --kermany $(WORK)/dataset --covid $(COVID) --out results/audits.csv

planted: $(STAMP)  ## results/planted.csv: how often the audit finds planted shortcuts, and how often it cries wolf (an hour)
	mkdir -p $(TRUST)
	$(BIN)/python -m benchmarks.planted --log $(TRUST)/planted.jsonl --dataset $(WORK)/dataset --out results/planted.csv

leakage: $(STAMP)  ## results/leakage.csv: planted copies across splits, found and missed (minutes)
	$(BIN)/python -m benchmarks.leakage --dataset $(WORK)/dataset --out results/leakage.csv

lime: $(STAMP)  ## results/lime.csv: LIME on six networks, stable or refused (an hour)
	$(BIN)/python -m benchmarks.lime --data $(KERMANY) --work $(TRUST)/lime --out results/lime.csv

sanity: $(STAMP)  ## results/sanity.csv: methods that must fail and must pass the randomisation test (half an hour)
	$(BIN)/python -m benchmarks.sanity --data $(KERMANY) --work $(TRUST)/sanity --out results/sanity.csv

localisation: $(STAMP)  ## results/localisation.csv: heat maps against planted lesions (half an hour)
	$(BIN)/python -m benchmarks.localisation --work $(TRUST)/localisation --out results/localisation.csv

conformal: $(STAMP)  ## results/conformal_coverage.csv: coverage over 1,000 splits against its law (minutes)
	$(BIN)/python -m benchmarks.conformal_coverage --out results/conformal_coverage.csv

retrieval: $(STAMP)  ## results/retrieval.csv: similar cases on the official test images (minutes)
	$(BIN)/python -m benchmarks.retrieval --dataset $(WORK)/dataset --readers chest-pneumonia $(WORK)/chest-pneumonia-seed0 \
	  --frozen $(WORK)/features-knn --cache $(WORK)/cache --out results/retrieval.csv

index-speed: $(STAMP)  ## results/index.csv: a million vectors, 100,000 images; run it on a quiet machine
	$(BIN)/python -m benchmarks.index_speed --dataset $(WORK)/dataset --cache $(WORK)/cache --out results/index.csv

mil: $(STAMP)  ## results/mil.csv: studies of many images, one answer, beside the best of single images (an hour)
	$(BIN)/python -m benchmarks.mil --kermany $(KERMANY) --covid-ct $(COVID_CT) --work $(TRUST)/mil --out results/mil.csv

workstation: $(STAMP)  ## results/web.csv: first image, page weight; run it on a quiet machine
	$(BIN)/python -m benchmarks.web --out results/web.csv

service: $(STAMP)  ## results/service.csv: the service under load; run it on a quiet machine
	$(BIN)/python -m benchmarks.service --out results/service.csv

service-faults: $(STAMP)  ## results/service_faults.csv: workers and servers killed under load, and what is left of what was acknowledged
	$(BIN)/python -m benchmarks.service_faults --out results/service_faults.csv

node: $(STAMP)  ## results/node.csv: the DICOM node beside Orthanc and storescp; run it on a quiet machine
	$(BIN)/python -m benchmarks.node --out results/node.csv

node-faults: $(STAMP)  ## results/node_faults.csv: the node killed again and again, and what is left of what it acknowledged
	$(BIN)/python -m benchmarks.node_faults --out results/node_faults.csv

node-soak: $(STAMP)  ## results/node_soak.csv: memory of the node over 50,000 associations (hours)
	$(BIN)/python -m benchmarks.node --only soak --out results/node_soak.csv

bombs: $(STAMP)  ## results/bombs.csv: time and memory of refusing files and streams that mean harm
	$(BIN)/python -m benchmarks.bombs --out results/bombs.csv

mutants: $(STAMP)  ## results/mutants.csv: 100,000 damaged DICOM files through the importer
	$(BIN)/python -m benchmarks.mutants --log runs/mutants.jsonl --out results/mutants.csv

deid: $(STAMP)  ## results/deid.csv: identifying strings left in 200 files and more, and what OCR cannot see (ten minutes)
	$(BIN)/python -m benchmarks.deid --films $(MR_DICOM) --out results/deid.csv

bench: $(STAMP)  ## the other figures of results/; run it on a quiet machine
	$(BIN)/python -m benchmarks.startup --out results/startup.csv
	$(BIN)/python -m benchmarks.phantoms --out results/phantoms.csv
	$(BIN)/python -m benchmarks.dataset_check $(KERMANY) --out results/dataset_check.csv
	$(BIN)/python -m benchmarks.read_speed --out results/read_speed.csv
	$(BIN)/python -m benchmarks.shift --dataset $(WORK)/dataset --out results/shift.csv
	$(BIN)/python -m benchmarks.training_speed --dataset $(WORK)/dataset --out results/training_speed.csv

lock: $(STAMP)  ## resolve requirements.lock anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra mlflow --extra service --extra pacs --extra deid --universal --generate-hashes \
	  --no-emit-index-url --no-header --python-version 3.11 --upgrade -o requirements.lock --quiet

clean:  ## remove the environment and what runs left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache demo
