# Orchestra. `make` alone says what there is.
PYTHON ?= $(shell command -v python3 || command -v python)
VENV   := .venv
RUN    := $(VENV)/bin/python
# Tests of one file stay in one process; those against the real server run alone, for it takes every core.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup setup-base demo test test-quick test-slow attacks crash crash-full simulate simulate-full mutants lint docs readme bench bench-engine bench-peers bench-fleet bench-ordering evaluate evaluate-workflows lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## .venv with the library, the local CPU fleet and its weights (Linux; 700 MB to fetch)
	@$(PYTHON) scripts/bootstrap.py cpu

setup-base:  ## .venv with the library and the development tools only (170 MB to fetch)
	@$(PYTHON) scripts/bootstrap.py base

demo: setup  ## ten questions to real documents, answered with quotes by a real vLLM server on this machine
	@$(RUN) scripts/demo.py

test:  ## set up, lint, and all tests but the slow ones, those against the real vLLM among them (nine minutes)
	@$(PYTHON) scripts/bootstrap.py base cpu
	@$(RUN) scripts/suites.py \
	  "lint:300=make --no-print-directory lint" \
	  "quick:1500=$(RUN) -m pytest -m 'not real and not slow' $(SIDE_BY_SIDE) --durations=10" \
	  "real:900=$(RUN) -m pytest -m real --durations=10"

test-quick: setup-base  ## those of them that need no vLLM
	$(RUN) -m pytest -m "not real and not slow" $(SIDE_BY_SIDE)

test-slow:  ## the longer suite: trainings, kills, hostile outputs, sessions of the docs (nine minutes)
	@$(PYTHON) scripts/bootstrap.py base cpu
	$(RUN) -m pytest -m "slow and not real" $(SIDE_BY_SIDE) --durations=10

attacks: setup-base  ## all cases of the long property tests: plans, projects, labels, throttling, damaged logs (an hour or more)
	ORCHESTRA_TEST_FULL=1 $(RUN) -m pytest -m "slow and not real" $(SIDE_BY_SIDE) --durations=10 tests/engine/test_plan_attacks.py tests/hostile tests/fleet tests/journal tests/verification tests/app/test_claims_combined.py

crash: setup-base  ## kill -9 at 500 points, and again during recovery: nothing lost, nothing repeated (a minute)
	$(RUN) -m tests.crash --kills 500

crash-full: setup-base  ## the same at 2,000 points, and at 200 with Postgres (minutes; needs its programs)
	$(RUN) -m tests.crash --kills 2000
	$(RUN) -m tests.crash --store postgres --kills 200

simulate: setup-base  ## 20,000 random workflows through random crashes and faults, each audited (5 minutes)
	$(RUN) -m tests.simulation.lab.simulate --runs 20000

simulate-full: setup-base  ## 100,000 of them (a quarter of an hour)
	$(RUN) -m tests.simulation.lab.simulate --runs 100000

mutants: setup-base  ## faults put into the sources on purpose, which the simulation or a test must find (half an hour)
	@$(RUN) scripts/suites.py "simulation=$(RUN) -m tests.simulation.mutants" "tests=$(RUN) -m tests.mutation.run"

lint: setup-base  ## ruff, mypy --strict, the floors between the rooms
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-cache

docs: setup-base  ## the documentation, into site/
	@$(RUN) scripts/build_docs.py
	$(RUN) -m zensical build --clean --strict

readme: setup  ## the output blocks of the README and of docs/, from real runs
	@$(RUN) scripts/readme.py

bench: bench-peers  ## all benchmarks: those below, then the tables of docs/evaluation
	-@$(MAKE) --no-print-directory bench-engine
	@$(RUN) -m bench.page
	@$(MAKE) --no-print-directory bench-fleet

bench-engine: setup-base  ## the engine against asyncio alone, and against its goals (a minute)
	@$(RUN) -m bench.engine

bench-peers: setup-base  ## the engine beside other libraries, each in an environment of its own (10 minutes, and 1 GB to fetch)
	-@$(RUN) -m bench.peers.run_all

bench-fleet:  ## the benchmark tables of docs/evaluation (minutes; needs the fleet)
	@$(PYTHON) scripts/bootstrap.py base cpu
	@$(RUN) scripts/readme.py bench

bench-ordering:  ## programs on one real server, in our order and as they come (20 minutes; needs the fleet)
	@$(PYTHON) scripts/bootstrap.py base cpu
	@$(RUN) -m bench.ordering
	@$(RUN) -m bench.page

evaluate:  ## every agent's evaluation anew, into its card and docs/evaluation/agents.md (make evaluate DATA=FOLDER ONLY=reader; 20 minutes on two cores)
	@$(PYTHON) scripts/bootstrap.py base cpu
	@$(RUN) -m bench.evaluate $(if $(DATA),--data $(DATA)) $(if $(ONLY),--only $(ONLY))

evaluate-workflows:  ## the shipped workflows on public data, into docs/evaluation/workflows.md and the README (the same DATA; minutes)
	@$(PYTHON) scripts/bootstrap.py base cpu
	@$(RUN) -m bench.workflows $(if $(DATA),--data $(DATA))

lock: setup-base  ## requirements/*.lock anew from pyproject.toml (make lock UPGRADE=--upgrade: newest versions)
	@$(RUN) scripts/lock.py $(UPGRADE)

clean:  ## what builds and tools leave behind (rm -r .venv removes the environment)
	rm -rf dist build site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find orchestra tests scripts bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
