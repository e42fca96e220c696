# Each target sets up what it needs in .venv. Needed beforehand: Python 3.11 or later, make and a C++ compiler.
PYTHON ?= python3
# Where torch for the tests comes from. The default is a build without CUDA, which saves gigabytes.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
VENV := .venv
BIN := $(VENV)/bin
NATIVE := pyproject.toml CMakeLists.txt $(wildcard csrc/*)
LOCK := tests/constraints.txt
# Python compiles what it imports. To compile all that is installed takes longer than the download.
PIP := $(BIN)/python -m pip install --quiet --no-compile
PYTEST := $(BIN)/python -m pytest --timeout 300

.PHONY: demo test test-slow test-all bench docs lint format lock clean

demo: $(VENV)/installed  ## convert samples/ into out/
	$(BIN)/sketchify-rt convert samples -o out --overwrite
	@echo "The sketches are in $(CURDIR)/out"

test: $(VENV)/installed-test  ## the fast tests
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/installed-dev  ## the rest of the tests; installs gigabytes
	$(PYTEST) -m slow

test-all: $(VENV)/installed-dev  ## all tests, with their coverage
	$(PYTEST) --cov --cov-report term:skip-covered

bench: $(VENV)/installed-dev  ## this machine's processor, beside what one would pick instead
	$(BIN)/python -m bench all

docs: $(VENV)/installed-docs  ## the site, in build/site
	$(BIN)/python -m mkdocs build --strict --site-dir build/site

lint: $(VENV)/installed-lint  ## what must be clean before a commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror csrc/*

format: $(VENV)/installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i csrc/*

lock: | $(BIN)/python  ## the newest versions of all packages, for the tests
	$(PIP) uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-annotate \
		--custom-compile-command "make lock" --output-file $(LOCK) pyproject.toml

clean:
	rm -rf $(VENV) build out .coverage

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Editable: a change of Python code needs no new install, a change of csrc/ does.
$(VENV)/installed: $(NATIVE) | $(BIN)/python
	$(PIP) --editable .
	touch $@

$(VENV)/installed-docs: $(VENV)/installed $(LOCK)
	$(PIP) --constraint $(LOCK) --editable '.[docs]'
	touch $@

# Alone and first: pip asks TORCH_INDEX for torch only, and the steps below keep what is installed.
$(VENV)/installed-torch: $(LOCK) | $(BIN)/python
	$(PIP) --no-deps --index-url $(TORCH_INDEX) --constraint $(LOCK) torch
	touch $@

$(VENV)/installed-test: $(NATIVE) $(VENV)/installed-torch
	$(PIP) --constraint $(LOCK) --editable '.[test]'
	touch $@ $(VENV)/installed

$(VENV)/installed-lint: $(VENV)/installed-test
	$(PIP) --constraint $(LOCK) --editable '.[lint]'
	touch $@

# Compiled with the tools in .venv: the test of the wheel compiles with them again, and finds most of it done.
$(VENV)/installed-dev: $(NATIVE) $(VENV)/installed-torch
	$(PIP) --constraint $(LOCK) cmake ninja pybind11 scikit-build-core
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) --no-build-isolation --constraint $(LOCK) --editable '.[dev]'
	touch $@ $(VENV)/installed $(VENV)/installed-docs $(VENV)/installed-test $(VENV)/installed-lint
