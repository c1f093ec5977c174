# The front door: `make help` lists the targets. Needs Python 3.11 to 3.13, git and make; the rest installs itself.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup data settings repro retrain status recheck clean-state backup up down smoke test test-slow check format bench lock clean

# Turn off every tool's telemetry.
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export HF_HUB_DISABLE_TELEMETRY := 1
# Waiting threads sleep instead of spinning: many times faster on shared cores, with the same resulting bytes.
export OMP_WAIT_POLICY := PASSIVE
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONUTF8 := 1
# Let Python cache bytecode even in containers that forbid it: it halves the start-up time of each process of a run.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## make .venv from requirements/dev.lock (the other targets do this first)
	@bash infra/setup.sh

data: setup ## put the default digits into data/raw if it is empty and data/datasheet.yaml describes them
	@python -m infra.digits --out data/raw --datasheet data/datasheet.yaml

settings: data
	@[ dvc.lock -nt params.yaml ] || python -m stages.config

repro: settings ## run whichever of the eight stages are stale: raw images in, a generator with its card out
	@dvc repro

retrain: settings ## the same as a Prefect flow, then register the result in MLflow and promote it if it has earned it
	@python -m flows.retrain

status: setup ## show which version is champion, since when, and what was refused and why
	@python -m flows.status

recheck: setup ## score the champion on today's data and verify its bytes
	@python -m flows.recheck

clean-state: setup ## remove what nobody needs any more from the state folder (HOW="--dry-run" or HOW="--days 7")
	@python -m flows.housekeeping $(HOW)

backup: setup ## save the registry and DVC's data to a new folder (TO=FOLDER); `python -m flows.backup` restores them
	@test -n "$(TO)" || { echo "backup: TO is not set; name a new folder: make backup TO=FOLDER" >&2; exit 2; }
	@python -m flows.backup save "$(TO)"

up: setup ## start PostgreSQL, an S3 store, MLflow, Prefect and a worker on this machine, with passwords
	@python -m infra.servers up

down: setup ## stop the servers of `make up`; their data stay
	@python -m infra.servers down

smoke: setup ## run all eight stages in about a minute on a cut-down configuration, in .smoke/
	@python -m infra.smoke

check: setup ## check format, style, types and architecture, and run the fast tests
	@ruff format --check .
	@ruff check .
	@mypy & types=$$!; pytest -q -n 2 --dist loadfile -m "fast and not slow"; tests=$$?; wait $$types && exit $$tests

test: setup ## run all tests but the slow ones
	@pytest -n 2 --dist loadfile -m "not slow"

test-slow: setup ## run the slow tests: minutes of training each
	@pytest -m slow

format: setup ## rewrite the code in the project's format
	@ruff format .
	@ruff check --fix .

bench: setup ## run the measured comparisons and write docs/benchmarks.md
	@python -m benchmarks

lock: setup ## resolve the dependencies anew into requirements/*.lock
	@bash infra/lock.sh --upgrade

clean: ## remove the environment and the caches of tools, never data
	rm -rf .venv .smoke .mypy_cache .ruff_cache .pytest_cache
