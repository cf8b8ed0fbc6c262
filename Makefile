# `make reproduce` and `make test` need Python >= 3.11 and make, nothing else; the network only to install packages.

PYTHON ?= python3
# Any other VENV (of conda, say) is used as it is, and nothing is installed into it.
VENV ?= .venv
SHARED ?= ../shared

PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# The generated datasets always; ESC-10's real recordings where they are at hand.
ESC10 ?= $(firstword $(wildcard $(PALMKIT_DATA)/ESC10 data/ESC10 $(SHARED)/datasets/ESC10))
REPRODUCE ?= --dataset default $(ESC10)

# Waiting threads sleep instead of spinning: nothing lost on free cores, very much gained on shared ones.
export OMP_WAIT_POLICY ?= passive

# Memory of large tensors is kept, not returned to the system: a third less time to pre-train.
KEEP_MEMORY = MALLOC_MMAP_THRESHOLD_=1000000000 MALLOC_TRIM_THRESHOLD_=10000000000

# With Agg, as on many servers, notebooks have no figures.
unexport MPLBACKEND

# Tests get a fresh folder for runs and cache, so nothing stale makes them green.
FRESH = tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT INT TERM && \
	PALMKIT_RUNS="$$tmp/runs" PALMKIT_CACHE="$$tmp/cache" PALMKIT_PROGRESS=0 OMP_NUM_THREADS=1

PYTEST = $(PY) -m pytest -p no:cacheprovider

.PHONY: help env check test test-arithmetics endurance reproduce quick mini notebooks browser lab benchmark gpu rehearsal site dist try-dist lock clean no-esc10

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 20

ifeq ($(VENV),.venv)
# The stamp holds what was installed, not a time, so a fresh checkout does not call pip again. It
# holds the folder too, because an editable install breaks when the folder moves. It is removed
# first and written last, so the next make repairs an interrupted one.
WANTED = { pwd; cat pyproject.toml tools/pyproject.toml requirements.lock; }

env: ## Make .venv, or bring it up to requirements.lock
	@$(WANTED) | cmp -s - $(STAMP) && $(PY) -c "" 2>/dev/null || { set -e; rm -f $(STAMP); \
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	    { echo "palmkit needs Python 3.11 or later and '$(PYTHON)' is not: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	    { echo "'$(PYTHON)' cannot make an environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	$(PY) -m pip install -r requirements.lock; \
	$(PY) -m pip install --no-deps --no-build-isolation -e . -e tools; \
	$(WANTED) > $(STAMP); }
else
# Not installed there, perhaps; notebooks run in their own folder and must find the package all the same.
export PYTHONPATH := $(CURDIR):$(CURDIR)/tools

env:
	@test -x $(PY) || { echo "There is no $(PY). Without VENV=... make creates .venv by itself." >&2; exit 1; }
endif

check: env ## Lint and the fast tests, without notebooks
	$(PY) -m ruff check .
	@$(PY) tools/run_tests.py --fast

test: env ## Lint, all tests, and all notebooks against their committed outputs
	$(PY) -m ruff check .
	@$(PY) tools/run_tests.py

# `make test` has a part of one notebook under one other arithmetic. This takes hours on two cores.
test-arithmetics: env ## All notebooks under every arithmetic that this processor has
	@$(FRESH) PALMKIT_ARITHMETICS=all $(PYTEST) tests/project/test_arithmetics.py

# The reproduction; notebooks from 8 on are studies, which train more by themselves.
SERIES = --only 0 1 2 3 4 5 6

endurance: env ## Many planted faults of every kind; writes docs/reliability.md (about two hours)
	@$(FRESH) $(PY) tools/endurance.py

reproduce: env no-esc10 ## Run all trials and notebooks 0 to 7; results are under runs/reproduce
	$(PY) -m palmkit notebooks --name reproduce $(REPRODUCE) $(SERIES) 7

quick: env ## The generated datasets with one seed and one fold, notebooks 0 to 6, under runs/quick
	$(PY) -m palmkit notebooks --name quick $(SERIES) --quick

no-esc10:
	@test -n "$(ESC10)" || echo "ESC-10's real recordings are not at hand, so they are left out: \`$(PY) -m palmkit fetch ESC10\` fetches them (80 MB)." >&2

SEED ?= 0
mini: env ## Pre-train mini-PENGI and write its card, under an hour on two cores (SEED=1: another)
	$(KEEP_MEMORY) $(PY) -m mini_pengi --seed $(SEED) $(if $(ESC10),--esc10 $(ESC10))

notebooks: env ## Execute the notebooks in place, to commit their outputs
	$(PY) tools/execute_notebooks.py

# selenium is not locked. Where it cannot be installed, the test skips and says so.
browser: env ## Use explore.ipynb in chromium with chromedriver (PICTURES=1: take its pictures)
	@$(PY) -c "import selenium" 2>/dev/null || $(PY) -m pip install -q -c requirements.lock "selenium>=4.20" || true
	@$(FRESH) PALMKIT_PICTURES=$(PICTURES) $(PYTEST) tests/widgets/browser_explore.py

lab: env ## Open the notebooks in JupyterLab
	$(PY) -m jupyter lab notebooks

benchmark: env ## Measure speed, how it grows with cores, and the explorer's answers
	$(PY) benchmarks/speed.py
	$(PY) benchmarks/scaling.py
	$(PY) benchmarks/explorer.py

gpu: env ## All that depends on the device, on a GPU: the table of docs/gpu.md (5 minutes)
	@$(FRESH) $(PY) tools/gpu.py

rehearsal: env ## The published grid on stand-ins behind a server: fetch, check, estimate, run (8 minutes)
	$(PY) tools/rehearse.py

# Sphinx and its theme are not locked. They change no locked package, and only this target needs them.
HAS_DOCS = from importlib.metadata import version; [*map(version, ("furo", "myst-nb", "sphinx-design", "sphinx-mathjax-offline"))]

site: env ## Build the site for reading without a network: build/site/index.html (a minute)
	@$(PY) -c '$(HAS_DOCS)' 2>/dev/null || \
	    $(PY) -m pip install -q -c requirements.lock --no-build-isolation -e ".[docs]"
	$(PY) tools/build_site.py

dist: env ## Build wheel and sdist into dist/, and check them
	@$(PY) -c "import build, twine" 2>/dev/null || \
	    $(PY) -m pip install -q -c requirements.lock "build>=1.2" "twine>=6"
	$(PY) tools/build_dist.py

try-dist: env ## Install the wheel of dist/ in an empty environment, and run the quick series from it
	$(PY) tools/build_dist.py --try

lock: ## Resolve pyproject.toml into requirements.lock (on Linux, with network)
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT INT TERM && \
	$(PYTHON) -m venv "$$tmp" && "$$tmp/bin/python" -m pip install -q uv && "$$tmp/bin/python" tools/lock.py

clean: ## Remove the environment and what tools left behind; runs and caches of results stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	find palmkit palmkit_synthetic tools tests notebooks benchmarks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
