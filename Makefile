PYTHON ?= python3
export DO_NOT_TRACK = 1
export DVC_NO_ANALYTICS = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export HF_HUB_OFFLINE = 1
export RAY_USAGE_STATS_ENABLED = 0
BIN := .venv/bin

.PHONY: demo evaluate-demo test test-slow check clean

demo: .venv/installed  ## build the embedded demo, run the whole pipeline on it, show the result
	$(BIN)/scalselect demo

evaluate-demo: .venv/installed  ## teach a small VLM to see, fine-tune it on subsets, compare: 18 minutes on two quiet cores
	$(BIN)/scalselect evaluate-demo --out build/evaluation

test: .venv/installed  ## the fast tests
	$(BIN)/python -m pytest

test-slow: .venv/installed  ## real servers, clusters and the browser
	$(BIN)/python -m pytest -m "slow or browser"

check: .venv/installed  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]" --constraint constraints.txt
	touch $@

clean:  ## remove everything `make demo` made
	rm -rf .venv data/raw data/samples data/features data/scores data/selection data/subsets data/manifests data/reports data/comparison data/store comparison
