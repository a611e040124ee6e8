# Orchestra. `make` lists the targets.
PYTHON ?= $(shell command -v python3 || command -v python)
VENV   := .venv
RUN    := $(VENV)/bin/python
# All tests of a file run in one process. The tests of the real server run alone, because it uses every core.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup setup-base demo demo-large test test-quick test-real test-real-slow test-slow coverage attacks attacks-server crash \
        crash-full crash-server simulate simulate-full mutants lint prose architecture docs readme bench bench-engine bench-peers bench-fleet \
        bench-ordering bench-server evaluate evaluate-workflows evaluate-requests lock clean

help:  ## this list; (nightly) marks the suites of .github/workflows/nightly.yml
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## .venv with the library, the local CPU fleet and its weights (Linux; 750 MB to fetch)
	@$(PYTHON) scripts/bootstrap.py cpu

setup-base:  ## .venv with the library and the development tools only (300 MB to fetch)
	@$(PYTHON) scripts/bootstrap.py base

demo: setup  ## ten questions about real documents, answered with quotes by a real vLLM server on this machine
	@$(VENV)/bin/orchestra demo

demo-large: setup  ## ten mixed requests to models of 135M, 0.5B and 1.5B (16 GiB of memory; 1.7 GB to fetch)
	@$(RUN) scripts/demo_large.py

test:  ## set up, lint, and all tests except the slow ones, including those of the real vLLM (nine minutes)
	@$(PYTHON) scripts/bootstrap.py base cpu
	@$(RUN) scripts/suites.py \
	  "lint:300=make --no-print-directory lint" \
	  "quick:1500=$(RUN) -m pytest -m 'not real and not slow' $(SIDE_BY_SIDE) --durations=10" \
	  "real:1200=$(RUN) -m pytest -m 'real and not slow' --durations=10"

test-quick: setup-base  ## the tests that need no vLLM and are not slow
	$(RUN) -m pytest -m "not real and not slow" $(SIDE_BY_SIDE)

test-real:  ## the tests of the real vLLM only (Linux; minutes)
	@$(PYTHON) scripts/bootstrap.py base cpu
	$(RUN) -m pytest -m "real and not slow" --durations=10

test-real-slow:  ## the tests of the real vLLM with larger models (nightly; needs 8 GiB of memory; 1.1 GB to fetch)
	@$(PYTHON) scripts/bootstrap.py base cpu
	$(RUN) -m pytest -m "real and slow" --durations=10

test-slow:  ## the longer suite: training, kills, hostile outputs, sessions of the docs (nightly; nine minutes)
	@$(PYTHON) scripts/bootstrap.py base cpu
	$(RUN) -m pytest -m "slow and not real" $(SIDE_BY_SIDE) --durations=10

coverage: setup-base  ## line and branch coverage of the quick suite, into htmlcov/ (nightly; longer than test-quick)
	$(RUN) -m pytest -m "not real and not slow" $(SIDE_BY_SIDE) --cov --cov-report=term --cov-report=html

attacks: setup-base  ## all cases of the long property tests: plans, projects, labels, throttling (nightly; over an hour)
	ORCHESTRA_TEST_FULL=1 $(RUN) -m pytest -m "slow and not real" $(SIDE_BY_SIDE) --durations=10 \
	  tests/engine/test_plan_attacks.py tests/hostile tests/fleet tests/journal tests/verification \
	  tests/app/test_claims_combined.py

attacks-server: setup-base  ## twice 10,000 hostile HTTP requests to a real server: no fault, nothing shown (nightly; minutes)
	$(RUN) -m tests.server.hostile --requests 10000 --max-growth 0.25

crash: setup-base  ## kill -9 at 500 points, and again during recovery: nothing lost, nothing repeated (a minute)
	$(RUN) -m tests.crash --kills 500

crash-full: setup-base  ## the same at 2,000 points, and at 200 with Postgres (nightly; minutes; needs its programs)
	$(RUN) -m tests.crash --kills 2000
	$(RUN) -m tests.crash --store postgres --kills 200

crash-server: setup-base  ## kill -9 of the HTTP server 100 times, with 200 runs and their streams (nightly; minutes)
	$(RUN) -m tests.server.kills --kills 100

simulate: setup-base  ## 20,000 random workflows through random crashes and faults, each audited (5 minutes)
	$(RUN) -m tests.simulation.lab.simulate --runs 20000

simulate-full: setup-base  ## 100,000 random workflows (nightly; a quarter of an hour)
	$(RUN) -m tests.simulation.lab.simulate --runs 100000

mutants: setup-base  ## faults put into the sources on purpose, which a test must find (nightly; half an hour)
	@$(RUN) scripts/suites.py "simulation=$(RUN) -m tests.simulation.mutants" "tests=$(RUN) -m tests.mutation.run"

lint: setup-base  ## ruff, mypy --strict, the layers of the packages, plain English
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-cache
	$(RUN) scripts/check_prose.py

prose:  ## phrases that are not plain technical English (make prose PROSE=--summary: counts)
	@$(PYTHON) scripts/check_prose.py $(PROSE)

architecture:  ## counts of files and lines, layers and import circles; draws docs/concepts/architecture.svg
	@$(PYTHON) scripts/architecture.py

docs: setup-base  ## the documentation, into site/
	@$(RUN) scripts/build_docs.py
	$(RUN) -m zensical build --clean --strict

readme: setup  ## the output blocks of the README and of docs/, from real runs
	@$(RUN) scripts/readme.py

bench: bench-peers  ## all benchmarks below, then the tables of docs/evaluation
	-@$(MAKE) --no-print-directory bench-engine
	@$(RUN) -m bench.page
	@$(MAKE) --no-print-directory bench-fleet

bench-engine: setup-base  ## the engine compared with plain asyncio, and with its goals (a minute)
	@$(RUN) -m bench.engine

bench-peers: setup-base  ## the engine compared with other libraries, in separate environments (10 minutes; 1 GB)
	-@$(RUN) -m bench.peers.run_all

bench-fleet:  ## the benchmark tables of docs/evaluation (minutes; needs the fleet)
	@$(PYTHON) scripts/bootstrap.py base cpu
	@$(RUN) scripts/readme.py bench

bench-server: setup-base  ## the HTTP server compared with the engine and with peers' servers (5 minutes; 300 MB)
	@$(RUN) -m bench.server --record
	@$(RUN) -m bench.page

bench-ordering:  ## programs on one real server, scheduled and in order of arrival (20 minutes; needs the fleet)
	@$(PYTHON) scripts/bootstrap.py base cpu
	@$(RUN) -m bench.ordering
	@$(RUN) -m bench.page

evaluate:  ## evaluate every agent, into its card and docs/evaluation (DATA=FOLDER ONLY=reader; 20 minutes, 2 cores)
	@$(PYTHON) scripts/bootstrap.py base cpu
	@$(RUN) -m bench.evaluate $(if $(DATA),--data $(DATA)) $(if $(ONLY),--only $(ONLY))

evaluate-workflows:  ## the shipped workflows on public data, into docs/evaluation/workflows.md (DATA=FOLDER; minutes)
	@$(PYTHON) scripts/bootstrap.py base cpu
	@$(RUN) -m bench.workflows $(if $(DATA),--data $(DATA))

evaluate-requests:  ## requests of eight offices, answered and scored (SPLIT=dev SYSTEM=orchestra WORLDS=NAMES LIMIT=N)
	@$(PYTHON) scripts/bootstrap.py base cpu
	@$(RUN) -m bench.requests --split $(or $(SPLIT),dev) --system $(or $(SYSTEM),orchestra) $(if $(FLEET),--fleet $(FLEET)) \
	  $(if $(ENDPOINT),--endpoint $(ENDPOINT) --model $(MODEL)) $(if $(WORLDS),--worlds $(WORLDS)) $(if $(LIMIT),--limit $(LIMIT))

lock: setup-base  ## write requirements/*.lock from pyproject.toml (UPGRADE=--upgrade: newest versions)
	@$(RUN) scripts/lock.py $(UPGRADE)

clean:  ## remove the output of builds and tools (rm -r .venv removes the environment)
	rm -rf dist build site htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache
	find orchestra agents tests scripts bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
