# Everything a contributor or a curious user does, by name. It needs python3 (3.11 or newer) and
# make; the rest is installed into .venv from the committed lock, whose hashes pip checks.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := -m pip install --quiet --no-input --disable-pip-version-check --no-warn-script-location
UV_VENV := .venvs/uv
UV := $(UV_VENV)/bin/uv
FAST_TESTS := tests/core tests/store tests/agents tests/cli tests/test_examples.py

export PYTHONUTF8 := 1

.PHONY: help
help:  ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

.PHONY: venv
venv: $(STAMP)  ## make .venv and install the locked packages

# The stamp is newer than the lock when there is nothing to do. A .venv whose Python is gone is
# made anew; one that was made without pip gets it.
$(STAMP): requirements/dev.txt pyproject.toml
	@python=$$(scripts/find-python) || exit 2; \
	$(BIN)/python -c '' 2>/dev/null || { \
	  echo "making $(VENV) with $$python"; "$$python" -m venv --clear $(VENV) || exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@echo "installing requirements/dev.txt"
	@$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: demo
demo: $(STAMP)  ## a fleet of agents does the tasks of examples/ before your eyes
	@$(BIN)/agentorch demo

.PHONY: check
check: $(STAMP)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=examples/agents $(BIN)/mypy --explicit-package-bases examples/agents/*.py
	$(BIN)/lint-imports

.PHONY: test
test: $(STAMP)  ## all tests, with real PostgreSQL and real sockets (ARGS="-k name" narrows)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

.PHONY: pictures
pictures: $(STAMP)  ## draw docs/pictures anew: a graph and a timeline of a real run
	$(BIN)/python scripts/pictures

.PHONY: session
session: $(STAMP)  ## record docs/pictures/session.svg anew: the first session of the README
	$(BIN)/python scripts/session

.PHONY: chaos-short
chaos-short: $(STAMP)  ## a large graph under thirty kills of serve, agents and PostgreSQL (minutes)
	AGENTORCH_CHAOS=1 $(BIN)/python -m pytest tests/scenarios/test_crashes.py

# Partitions need root and ip (iproute2), a full disk needs root, jumping clocks need libfaketime:
# without them those tests are skipped, with the reason.
TASKS ?= 100000
KILLS ?= 50
.PHONY: chaos
chaos: $(STAMP)  ## 100,000 tasks under 50 kills, and every fault that there is (TASKS=N KILLS=K; long)
	$(BIN)/agentorch chaos --tasks $(TASKS) --kills $(KILLS) --within 3 $(if $(SEED),--seed $(SEED))
	AGENTORCH_CHAOS=1 $(BIN)/python -m pytest tests/chaos $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP)  ## frames, files, settings and texts that nobody should send (EXAMPLES=N for each test; minutes)
	AGENTORCH_FUZZ=$(or $(EXAMPLES),5000) $(BIN)/python -m pytest tests/fuzz $(ARGS)

.PHONY: bench
bench: $(STAMP)  ## measure it all: rates, latency, growth, fleets, graphs, nodes, start-up (ARGS="--only drain")
	$(BIN)/python -m bench $(ARGS)

.PHONY: tallies
tallies: $(STAMP)  ## a million random votes: early decision against asking everybody, every rule
	AGENTORCH_TALLIES=60000 $(BIN)/python -m pytest tests/core/test_consensus_early.py $(ARGS)

.PHONY: schemas
schemas: $(STAMP)  ## write the JSON Schemas of what commands print anew
	$(BIN)/python scripts/output-schemas

.PHONY: format
format: $(STAMP)  ## put the code into its form and repair what lint can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(UV):
	@python=$$(scripts/find-python) && "$$python" -m venv $(UV_VENV)
	@$(UV_VENV)/bin/python $(PIP_INSTALL) 'uv>=0.9,<1'

# Keeps the versions that are locked where pyproject.toml still allows them; UPGRADE=1 takes the
# newest. One file serves every platform and every supported Python.
.PHONY: lock
lock: $(UV)  ## write requirements/*.txt anew (UPGRADE=1 takes the newest versions)
	@python=$$(scripts/find-python) || exit 2; \
	compile="$(UV) pip compile --quiet --universal --python-version 3.11 --python $$python --generate-hashes \
	  --no-annotate --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)"; \
	export UV_CUSTOM_COMPILE_COMMAND="make lock"; \
	$$compile pyproject.toml -o requirements/base.txt && \
	$$compile pyproject.toml --group dev -c requirements/base.txt -o requirements/dev.txt

# Both ends of the bounds in pyproject.toml are promises: the lowest versions on the oldest Python,
# the newest on the newest.
.PHONY: test-lowest
test-lowest: $(UV)  ## the quick tests with the lowest versions that pyproject.toml allows
	@NEWEST_MINOR=11 scripts/try-bounds lowest-direct .venvs/lowest $(UV) $(FAST_TESTS)

.PHONY: test-newest
test-newest: $(UV)  ## the quick tests with the newest versions on the newest Python
	@scripts/try-bounds highest .venvs/newest $(UV) $(FAST_TESTS)

.PHONY: clean
clean:  ## remove what the other targets made
	rm -rf .venv .venvs .demo build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
