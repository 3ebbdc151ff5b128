PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test check acceptance install browser clean
run: install            ## train the embedded default and print its table
	$(BIN)/p2o run

test: check browser     ## everything CI runs
	$(BIN)/pytest -m "not slow"

acceptance: install     ## the embedded default's claims on three seeds (about 15 minutes)
	$(BIN)/pytest -m slow

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: .venv/.installed

browser:                ## headless Chromium for the tests of pages, from the system's packages
	@command -v chromium chromedriver >/dev/null || { apt-get update -qq; apt-get install -y -qq chromium chromium-driver >/dev/null; } \
		|| { echo "no Chromium. Mend: install the packages chromium and chromium-driver"; exit 1; }

# torch first and by its exact version: a plain range takes the newest CUDA build where a CPU build is at hand
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch .venv/.installed

clean:                  ## remove what runs and the environment left behind; params.yaml and dvc.lock stay
	rm -rf .venv experiments data/base data/runs data/reports data/timings .dvc/cache mlflow.db mlartifacts .prefect
