# What a person types. `make help` lists it; CONTRIBUTING.md tells the rest.

VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
# -P: nothing is imported from the current folder, so only what was installed can be under test.
RUN    := $(BIN)/python -P
PIP    := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := $(shell find agent config -type f -not -name '*.pyc') pyproject.toml README.md LICENSE
CORE_COVERAGE := --cov --cov-config=pyproject.toml --cov-report=term
# Not that of schemathesis, which is a second to load: what needs it runs it as a program.
PYTEST := $(RUN) -m pytest -p no:schemathesis
# Where tests with a mark are, beside tests/system: what is not read for nothing need not be left out.
MARKED = $$(grep -rlE --include='test_*.py' --exclude-dir=system 'pytest\.mark\.$(1)\b' tests)
CODE   := agent tests benchmarks examples tools docs/draw.py

# Whatever the environment says of it, a module is compiled once, not by each process that reads it.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo docs install dev release vulnerabilities test check check-with-packages lint format bench truth servers soak lock packages clean distclean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18
	@echo "Variables: VENV=$(VENV) PYTHON=$(PYTHON); TAXIMETER_TEST_ALL=1 makes a skipped test a failure."

demo: $(VENV)/.wheel  ## three real runs and their receipts, in a temporary folder
	@$(RUN) examples/demo.py $(if $(KEEP),--keep)

install: $(VENV)/.wheel  ## build the wheel and install it, with locked dependencies, into $(VENV)

dev: $(VENV)/.tools  ## install the sources in place instead (the wrapper's speed is the wheel's)
	$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.wheel

test: check-with-packages  ## everything: checks, the core's coverage, real processes and servers
	$(PYTEST) -m "system and not timing" --numprocesses 2 --dist loadfile tests/system $(call MARKED,system)
	$(PYTEST) -m "system and timing" tests/system

check: $(VENV)/.tools $(VENV)/.wheel  ## format, lint, types, layers, and every test that starts no server
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint vulnerabilities
	$(PYTEST) $(CORE_COVERAGE) -m "covering" --numprocesses 2 --ignore tests/system
	$(PYTEST) -m "not covering and not system and not timing" --numprocesses 2 --ignore tests/system
	$(PYTEST) -m "timing and not system" $(call MARKED,timing)

check-with-packages: packages check

vulnerabilities: $(VENV)/.tools
	$(RUN) tools/vulnerabilities.py requirements/build.txt requirements/runtime.txt requirements/test.txt

lint: $(VENV)/.tools $(VENV)/.wheel
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	PYTHONPATH=agent $(BIN)/lint-imports  # the sources, as the others: the wheel has one module made of many (wrap/whole.py)

format: $(VENV)/.tools  ## put the code into shape
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

docs: $(VENV)/.wheel  ## draw anew what the documentation takes from the code
	$(RUN) docs/draw.py

bench: $(VENV)/.tools $(VENV)/.wheel  ## print every figure that the documentation claims
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script; done

truth: $(VENV)/.wheel  ## measure durations against the kernel's own, into docs/timing.md (root; a quarter of an hour)
	$(BIN)/python benchmarks/timing_truth.py --write-docs --csv $(VENV)/timing_truth.csv

servers: $(VENV)/.wheel  ## run LitServe, BentoML and Ray Serve (SERVERS=vllm: that) under the meter; a gigabyte (ten)
	$(BIN)/python tools/real_servers.py $(SERVERS) $(if $(ENVIRONMENTS),--environments $(ENVIRONMENTS))

release: $(VENV)/.wheel  ## the wheel in dist/, with its bill of materials (CycloneDX) beside it
	@for wheel in dist/taximeter-*.whl; do name=$$(basename $$wheel); version=$${name#taximeter-}; \
	$(RUN) tools/sbom.py $${version%%-*} requirements/runtime.txt $$wheel >$${wheel%%-py*}.cdx.json && echo "Wrote $${wheel%%-py*}.cdx.json"; done

soak: $(VENV)/.tools $(VENV)/.wheel  ## all faults at random for ten minutes (SECONDS=600 SEED=; root, a C compiler)
	PYTHONPATH=.:benchmarks $(RUN) -m tests.soak --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options $(LOCKFLAGS)

# With the oldest Python that is supported: it needs the most backports, so its lock serves the newer ones, too.
lock: $(VENV)/.tools  ## pin dependencies anew (LOCKFLAGS=--upgrade for the newest)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	|| { echo "cannot lock with $$($(BIN)/python --version): expected Python 3.11 (make lock VENV=/tmp/v PYTHON=python3.11)" >&2; exit 1; }
	$(COMPILE) --output-file requirements/build.txt requirements/build.in
	$(COMPILE) --output-file requirements/runtime.txt pyproject.toml
	$(COMPILE) --output-file requirements/test.txt -c requirements/build.txt -c requirements/runtime.txt pyproject.toml requirements/test.in

packages:
	@sh tests/system/packages.sh

clean:  ## remove what was built
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage htmlcov .benchmarks
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

distclean: clean  ## and the virtual environment
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	|| { echo "cannot use $(PYTHON) ($$($(PYTHON) --version 2>&1)): expected Python 3.11 or newer (name one: make PYTHON=python3.12 ...)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	|| { echo "cannot make $(VENV) with $(PYTHON): expected its modules venv and ensurepip (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Wheels only: nothing is compiled here, and no setup script of others runs. The lock is the whole answer (--no-deps): older
# pips would look for a newer release of a package that another asks for with an extra, and then miss its hash.
INSTALL := $(PIP) install --require-hashes --no-deps --only-binary :all: --progress-bar off

$(VENV)/.runtime: requirements/build.txt requirements/runtime.txt | $(BIN)/python
	@echo "Installing what Taximeter runs on, and what builds it (each by its hash)"
	@$(INSTALL) -r requirements/build.txt
	@$(INSTALL) -r requirements/runtime.txt
	@touch $@

$(VENV)/.tools: requirements/test.txt | $(BIN)/python
	@echo "Installing what Taximeter runs on, and what checks and tests it (each by its hash)"
	@$(INSTALL) -r requirements/test.txt
	@touch $@ $(VENV)/.runtime

$(VENV)/.wheel: $(SOURCES) $(VENV)/.runtime
	@rm -rf dist && mkdir dist
	@$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@echo "Built $$(ls dist)"
	@$(PIP) install --quiet --no-deps --force-reinstall dist/taximeter-*.whl
	@$(PIP) --quiet check && test -x $(BIN)/taximeter
	@touch $@
