# make compare   the main job: searchers compared on the embedded dataset, figures in results/compare
# make test      the tests
# make bench     the speed measurements, in results/bench
# make lint      ruff and mypy
# make torture   500 runs killed, a million hostile formulas, damaged files: an hour, docs/results/reliability.md
# make lock      requirements.lock anew, from pyproject.toml and constraints.txt
# make advisories  known security advisories for the pinned versions
# make clean     removes what these commands made, results aside
#
# Each sets up .venv first, where that is not done yet. Another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
INSTALLED := .venv/.installed
SOURCES := gploss rl recmodels experiments tests
PIP := $(VENV_PYTHON) -m pip install --disable-pip-version-check

# Tools that are needed now and then, in an environment of their own.
TOOLS := .venv/tools
UV := uv==0.13.9
PIP_AUDIT := pip-audit==2.10.1

.PHONY: help setup compare test bench lint torture lock advisories clean
.DELETE_ON_ERROR:

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(INSTALLED)

compare: $(INSTALLED)
	.venv/bin/gploss compare --out results/compare --resume

# One thread a worker: two workers with a pool of threads each would wait for each other.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -q -n 2

bench: $(INSTALLED)
	.venv/bin/gploss bench --out results/bench --overwrite

lint: $(INSTALLED)
	$(VENV_PYTHON) -m ruff check $(SOURCES)
	$(VENV_PYTHON) -m ruff format --check $(SOURCES)
	$(VENV_PYTHON) -m mypy --strict gploss rl recmodels experiments

torture: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m tests.torture

lock: | $(INSTALLED)
	@test -x $(TOOLS)/bin/uv || { $(VENV_PYTHON) -m venv $(TOOLS) && $(TOOLS)/bin/python -m pip install -q $(UV); }
	$(TOOLS)/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --extra dev \
		--no-emit-package torch --python-version 3.11 --constraints constraints.txt --output-file requirements.lock pyproject.toml

# With no way to the database of advisories it says so in one line.
advisories: | $(INSTALLED)
	@test -x $(TOOLS)/bin/pip-audit || { $(VENV_PYTHON) -m venv $(TOOLS) && \
		$(TOOLS)/bin/python -m pip install -q $(PIP_AUDIT); } || { \
		echo "no advisories: pip-audit cannot be installed without a network" >&2; exit 1; }
	@$(TOOLS)/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off -r constraints.txt \
		2> .venv/advisories.log || { \
		grep -q "Max retries\|timed out\|ConnectionError" .venv/advisories.log && \
		echo "no advisories: their database cannot be reached without a network" >&2 || \
		tail -n 1 .venv/advisories.log >&2; exit 1; }

# Written last, so that a set-up cut short starts again.
$(INSTALLED): pyproject.toml constraints.txt requirements.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "gploss needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>/dev/null || echo missing)." >&2; \
		echo "Name another one: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv .venv || { \
		echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
		exit 1; }
	$(PIP) --require-hashes --no-deps -r requirements.lock
	$(PIP) --no-build-isolation -c constraints.txt -e ".[dev]"
	@touch $(INSTALLED)

clean:
	rm -rf .venv build gploss.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find gploss rl recmodels experiments tests -type d -name __pycache__ -prune -exec rm -rf {} +
