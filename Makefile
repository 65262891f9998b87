# `make help` lists the targets; the line above each explains it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := PYTHONPATH=dags:. $(BIN)/python
WORKERS ?= 4

# An image may set it, for a small layer. Here each of the many processes would compile all that it imports again.
unexport PYTHONDONTWRITEBYTECODE

# What is given on the command line reaches our programs as it is, through the environment: as a part of a recipe's text, or
# expanded by make, it would be executed.
GIVEN := DETAILS DUALWRITE_CATALOG DUALWRITE_MIGRATIONS LOCAL PORT PROJECT SCHEMA SOAK TARGET WORKERS module name sample
$(foreach given,$(GIVEN),$(eval override $(given) := $$(value $(given))))
export $(GIVEN)

.PHONY: help install demo ready ready-up up down test unit mutants soak check format migration snapshot indexes roles catalog env doctor difference licences bench constraints

## list these targets
help:
	@awk '/^## /{said = substr($$0, 4); next} said && /^[a-z]+:/{sub(":.*", ""); printf "make %-12s %s\n", $$0, said} {said = ""}' Makefile

## create the virtual environment that the other targets need
install: $(VENV)/.installed

# uv installs in seconds what takes pip minutes; pip is only used to get uv.
$(VENV)/.installed: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed; set PYTHON=python3.12, for example."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: Python's venv is missing: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep -o '^uv==[0-9.]*' requirements-dev.txt)"
	@$(BIN)/uv pip install -q --python $(BIN)/python -r requirements-dev.txt -c constraints.txt || { echo "make: the install failed; is the disk full (df -h .), is the package registry reached?"; exit 1; }
	@touch $@

## the whole story on this machine: migrate, backfill, lose writes, find and repair them (DETAILS=1: each report whole)
demo: ready install
	@$(RUN) -m dev.demo

# What `make` can't install is looked for before it installs for minutes.
ready ready-up:
	@$(PYTHON) -m dev.ready $(patsubst ready-%,%,$(filter ready-up,$@))

## start the local stack with Airflow's UI (PORT=8080 by default)
up: ready-up install
	@$(RUN) -m dev.up

## stop what `make up` started
down: install
	@$(RUN) -m dev.up --down

## the whole suite, soak tests left out, in WORKERS=4 processes, each with databases of its own
test: install
	@$(RUN) -m pytest -m "not soak" -n "$$WORKERS" --no-loadscope-reorder

## the tests that need no server, in a minute
unit: install
	@$(RUN) -m pytest tests/unit

## break modules one expression at a time, and list what no test notices (module=classify: only that one; sample=50: so many of it)
mutants: install
	@$(RUN) -m dev.mutants $${module:+"$$module"} $${sample:+--sample "$$sample"}

## the long tests: every fault at every moment, thousands of random histories (SOAK=0.1: a tenth of it)
soak: install
	@$(RUN) -m pytest -m soak

## lint, check formatting and types, lint the migrations
check: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy
	@$(BIN)/squawk sql/migrations/*.sql sql/shipped_app/*.sql sql/optional/*.sql sql/roles/*.sql

## format the code and fix what ruff can fix
format: install
	@$(BIN)/ruff check -q --fix .
	@$(BIN)/ruff format -q .

## create a migration file: make migration name=add_x
migration: install
	@$(RUN) -m dev.new_migration "$$name"

## rewrite snapshot.json, in sql/ or in your own folder: what the migrations promise
snapshot: install
	@$(RUN) -m dev.schema_snapshot

## draft a catalog from a project and a database: SCHEMA= (one, or several joined by commas), PROJECT=, TARGET=
catalog: install
	@$(RUN) -m dev.draft_catalog --schema "$${SCHEMA:-public}" --project "$$PROJECT" --target "$$TARGET"

## check an installation, one line for each check
doctor: install
	@$(RUN) -m dev.doctor

## show one difference side by side, on your terminal only: make difference name=posts:AbC123
difference: install
	@$(RUN) -m dev.difference "$$name"

## write .env for docker compose
env: install
	@$(RUN) -m dev.dotenv

## rewrite firestore.indexes.json, in docs/ or beside your own catalog: what its queries need
indexes: install
	@$(RUN) -m dev.firestore_indexes

## rewrite docs/licences.md (PYTHON=: one that has the image's packages)
licences:
	@PYTHONPATH=. $(PYTHON) -m dev.licences

## rewrite the role files, in sql/roles or in roles/ beside your own catalog: what the catalog and the migrations need
roles: install
	@$(RUN) -m dev.roles

## measure on a world of production's size
bench: install
	@$(RUN) -m benchmarks.throughput
	@$(RUN) -m benchmarks.real_size

## pin exact versions in constraints.txt and constraints-image.txt again
constraints: install
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes requirements-dev.txt -o constraints.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes requirements-image.txt -o constraints-image.txt
