# make compare   the main job: searchers compared on the embedded dataset, figures in results/compare
# make test      the tests
# make bench     the speed measurements, in results/bench
# make lint      ruff and mypy
# make clean     removes what these commands made, results aside
#
# Each sets up .venv first, where that is not done yet. Another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
INSTALLED := .venv/.installed
SOURCES := gploss rl recmodels experiments tests

.PHONY: help setup compare test bench lint clean
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

# Written last, so that a set-up cut short starts again.
$(INSTALLED): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "gploss needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>/dev/null || echo missing)." >&2; \
		echo "Name another one: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv .venv || { \
		echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
		exit 1; }
	$(VENV_PYTHON) -m pip install --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(INSTALLED)

clean:
	rm -rf .venv build gploss.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find gploss rl recmodels experiments tests -type d -name __pycache__ -prune -exec rm -rf {} +
