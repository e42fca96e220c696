# Each target sets up what it needs in .venv. Needed beforehand: Python 3.11 or later, make and a C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := pyproject.toml CMakeLists.txt $(wildcard csrc/*)

.PHONY: demo test bench docs lint format clean

demo: $(VENV)/installed  ## convert samples/ into out/
	$(BIN)/sketchify-rt convert samples -o out --overwrite
	@echo "The sketches are in $(CURDIR)/out"

test: $(VENV)/installed-dev  ## the whole test suite
	$(BIN)/python -m pytest

bench: $(VENV)/installed-dev  ## all on this machine's processor, beside what one would pick instead
	$(BIN)/python -m bench all

docs: $(VENV)/installed-docs  ## the site, in build/site
	$(BIN)/python -m mkdocs build --strict --site-dir build/site

lint: $(VENV)/installed-dev  ## what must be clean before a commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror csrc/*

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i csrc/*

clean:
	rm -rf $(VENV) build out

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Editable, so that a change of Python code needs no new install; one of csrc/ does.
$(VENV)/installed: $(NATIVE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# Compiled with the tools in .venv: so the test of the wheel, which builds with them too, finds most of it done.
$(VENV)/installed-dev: $(NATIVE) tests/constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet cmake ninja pybind11 scikit-build-core
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --no-build-isolation --constraint tests/constraints.txt --editable '.[bench,dev,docs,gpu,pdf,ray,train,video]'
	touch $@ $(VENV)/installed

$(VENV)/installed-docs: $(VENV)/installed pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@
