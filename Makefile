# make demo   a gap found, shown, written and verified on this machine    make test   the whole suite
# make doctor whether an installation is fit to work: one line a check
# make up     the same stack with Airflow's UI                            make check  lint and types

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := PYTHONPATH=dags:. $(BIN)/python

.PHONY: help install demo test soak check up down migration snapshot constraints bench format indexes env doctor catalog

help:
	@grep -E '^#' Makefile

install: $(VENV)/.installed

# uv installs in seconds what takes pip minutes; pip is only used to get uv.
$(VENV)/.installed: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed; set PYTHON=python3.12, for example."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: Python's venv is missing: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep -o '^uv==[0-9.]*' requirements-dev.txt)"
	@$(BIN)/uv pip install -q --python $(BIN)/python -r requirements-dev.txt -c constraints.txt || { echo "make: the install failed; is the disk full (df -h .), is the package registry reached?"; exit 1; }
	@touch $@

demo: install
	@$(RUN) -m dev.demo

up: install
	@PORT=$(PORT) $(RUN) -m dev.up

down: install
	@$(RUN) -m dev.up --down

test: install
	@$(RUN) -m pytest -m "not soak"

soak: install
	@$(RUN) -m pytest -m soak

check: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy
	@$(BIN)/squawk sql/migrations/*.sql sql/optional/*.sql sql/roles/*.sql

format: install
	@$(BIN)/ruff check -q --fix .
	@$(BIN)/ruff format -q .

migration: install
	@$(RUN) -m dev.new_migration "$(name)"

snapshot: install
	@$(RUN) -m dev.schema_snapshot

catalog: install
	@$(RUN) -m dev.draft_catalog --schema "$(or $(SCHEMA),public)" --project "$(PROJECT)" --target "$(TARGET)"

doctor: install
	@$(RUN) -m dev.doctor

env: install
	@LOCAL=$(LOCAL) $(RUN) -m dev.dotenv

indexes: install
	@$(RUN) -m dev.firestore_indexes

bench: install
	@$(RUN) -m benchmarks.throughput
	@$(RUN) -m benchmarks.real_size

constraints:
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes requirements-dev.txt requirements-image.txt -o constraints.txt
