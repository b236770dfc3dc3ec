# What there is to do in a checkout. Plain `make` lists it.

# The first of these that is new enough is used; PYTHON=... names another.
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11
PYTEST_ARGS ?=
BENCH_ARGS ?= --write
SEEDS ?= 3
SECONDS ?= 20
VENV := .venv

.PHONY: help up test lint bench chaos screenshots format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

up: ## run a database, the web on PORT (8000) and a runner here; Ctrl-C stops them
	@$(call install,embedded)
	@exec $(VENV)/bin/jobrunner up

test: ## run the whole suite; PYTEST_ARGS='-k predict' runs a part of it
	@$(call install,embedded dev)
	@exec $(VENV)/bin/python -m pytest $(PYTEST_ARGS)

lint: ## check the style and the types of Python and SQL
	@$(call install,embedded dev)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/sqlfluff lint --disable-progress-bar sql

bench: ## measure this system and its peers side by side, for an hour or two; BENCH_ARGS=drain
	@$(call install,embedded bench)
	@exec $(VENV)/bin/python -m benchmarks $(BENCH_ARGS)

chaos: ## break a real system by SEEDS (3) plans of SECONDS (20), and catch broken runners
	@$(call install,embedded)
	@exec $(VENV)/bin/python -m chaos --seeds $(SEEDS) --seconds $(SECONDS) --directed --mutants

screenshots: ## draw the pictures of the dashboard that the README shows
	@$(call install,embedded dev)
	@exec $(VENV)/bin/python docs/screenshots.py

format: ## write Python in the project's style
	@$(call install,embedded dev)
	$(VENV)/bin/ruff check --fix --exit-zero --quiet
	$(VENV)/bin/ruff format

clean: ## remove what was installed and built; the data in .jobrunner stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Makes $(VENV) with the extras $(1), if it is not there: for each extra a file in it says for
# which setup.cfg it was installed, and is written last, so that an install that was cut off is
# done again. A venv whose Python is gone, or that came here from another folder, is made anew.
define install
set -e; \
sum=$$(cat setup.cfg pyproject.toml | cksum); \
if ! $(VENV)/bin/python -c '$(new_enough)' 2> /dev/null || ! test -x $(VENV)/bin/pip \
    || ! grep -qF "$$(pwd -P)/$(VENV)" $(VENV)/pyvenv.cfg; then \
    $(find_python); \
    rm -rf $(VENV); \
    $$python -m venv $(VENV); \
fi; \
for extra in $(1); do \
    test "$$(cat $(VENV)/installed-$$extra 2> /dev/null)" != "$$sum" || continue; \
    echo "Installing $$extra into $(VENV) ..."; \
    $(VENV)/bin/python -m pip install -qq --disable-pip-version-check --editable ".[$$extra]"; \
    echo "$$sum" > $(VENV)/installed-$$extra; \
done
endef

define find_python
python=; \
for name in $(PYTHON); do \
    if $$name -c '$(new_enough)' 2> /dev/null; then python=$$name; break; fi; \
done; \
if test -z "$$python"; then \
    echo "Python 3.11 or newer is needed and is not here as: $(PYTHON). Name it: make PYTHON=/path/to/python" >&2; \
    exit 1; \
fi; \
if ! $$python -c 'import ensurepip, venv' 2> /dev/null; then \
    echo "$$python can not make a virtual environment: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; \
    exit 1; \
fi
endef

new_enough := import sys; sys.exit(sys.version_info < (3, 11))
