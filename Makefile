# Everything a person or CI runs. `make demo` and `make test` work on a fresh machine with Python 3.11, pip and make.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CODE := foundation mergers tasks models trainers evaluators pipeline benchmarks tests

export PYTHONHASHSEED := 0
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help setup demo compare test integration packages quick chaos bench parity check format lint types layers clean

help:            ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## make .venv with the pinned versions

# torch first, at its pinned version: a resolver left alone would bring gigabytes of CUDA.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY)   ## five stages of learning and merging on real images, a few minutes on two cores
	$(BIN)/python -m pipeline run experiments/digits_wise_ft.yaml

compare: $(READY) ## sequential against WiSE-FT, two learning rates, three seeds (half an hour and more)
	$(BIN)/python -m pipeline run experiments/digits_compare.yaml

test: $(READY)   ## all tests but those of `make integration`
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder --durations=40 -m 'not integration'

# One process, because all of them share one server. What cannot be had here is skipped, and the summary says why.
integration: .venv/.servers packages  ## tests that need servers: MLflow with users on PostgreSQL (a few minutes)
	$(BIN)/python -m pytest -m integration -rs --durations=15

packages:        ## the Debian packages that `make integration` needs, as root or with sudo; else it says what is missing
	@sh tests/integration/packages.sh

.venv/.servers: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[integration]'
	touch $@

KILLS ?= 100
LONG := MERGELINE_CRASH_EVERY=1 MERGELINE_ACTOR_KILLS=20 MERGELINE_NODES=all MERGELINE_FLAKY_RUNS=10 MERGELINE_ROUNDS=20 MERGELINE_FUZZ=2000 MERGELINE_TYPOS=4 MERGELINE_SIGNALS=all

chaos: $(READY)   ## every fault in its long form, with 100 kills of a whole run (two hours; in half an hour: KILLS=10)
	$(LONG) $(BIN)/python -m pytest -s tests/faults
	MERGELINE_KILLS=10 $(BIN)/python -m pytest -s tests/pipeline/test_search_kill.py
	MERGELINE_KILLS=$(KILLS) MERGELINE_KILL_SLOTS=2 $(BIN)/python -m pytest -s tests/pipeline/test_kill.py
	MERGELINE_OBJECT_KILLS=5 $(BIN)/python -m pytest -s tests/pipeline/objects/test_objects_run.py
	MERGELINE_KILLS=1 $(BIN)/python -m pytest -s tests/deploy/test_slurm_hosts.py

quick: $(READY)  ## the tests that need no cluster and take no more than seconds
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m 'not slow and not cluster and not integration'

# The peer has an environment of its own. There, too, torch comes first.
MERGELINE_MERGEKIT ?= $(CURDIR)/.bench/venv/bin
bench parity: export MERGELINE_MERGEKIT := $(MERGELINE_MERGEKIT)
BENCH ?= --scale 1.1b

$(CURDIR)/.bench/venv/bin/mergekit-yaml: constraints.txt
	$(PYTHON) -m venv .bench/venv
	.bench/venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.bench/venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt mergekit==0.1.5
	touch $@

bench: $(READY) $(MERGELINE_MERGEKIT)/mergekit-yaml  ## merging against mergekit, 1.5 h and 16 GB of disk (small: BENCH='--scale 50m')
	$(BIN)/python -m benchmarks run --write $(BENCH)

parity: $(READY) $(MERGELINE_MERGEKIT)/mergekit-yaml  ## every shared merge method against mergekit, element by element
	$(BIN)/python -m benchmarks parity --write

# Other harnesses have environments of their own. There, too, torch comes first; what is not compiled here is when it is first used.
HARNESS_PIP = bin/pip install --quiet --disable-pip-version-check --no-compile -c constraints-harness.txt

.PHONY: harness lmms
harness: .harness/lm_eval/.ready  ## lm-eval in an environment of its own (a minute or two, 1.4 GB)

lmms: .harness/lmms_eval/.ready  ## lmms-eval in an environment of its own (a minute or two, 2 GB)

.harness/lm_eval/.ready: constraints-harness.txt
	$(PYTHON) -m venv .harness/lm_eval
	.harness/lm_eval/$(HARNESS_PIP) torch
	.harness/lm_eval/$(HARNESS_PIP) 'lm_eval[hf]' pillow
	touch $@

# A torchvision that was built for another torch breaks every import of transformers; without one, transformers does without.
.harness/lmms_eval/.ready: constraints-harness.txt
	$(PYTHON) -m venv .harness/lmms_eval
	.harness/lmms_eval/$(HARNESS_PIP) torch
	.harness/lmms_eval/$(HARNESS_PIP) lmms_eval decord
	.harness/lmms_eval/bin/python -c 'import torchvision' 2>/dev/null || .harness/lmms_eval/bin/pip uninstall --quiet --yes torchvision timm
	touch $@

check: format lint types layers test  ## what CI does, but for `make integration`

format: $(READY)
	$(BIN)/ruff format --check $(CODE)

lint: $(READY)
	$(BIN)/ruff check $(CODE)

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

clean:           ## remove the environment and caches, not your store and runs
	rm -rf .venv .mypy_cache .ruff_cache .import_linter_cache .pytest_cache *.egg-info
