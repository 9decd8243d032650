# make demo   run the image example on this machine      make check  lint and strict types
# make test   every test, in parallel                    make bench  speed, beside its peers
.PHONY: demo test check bench clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group check
	touch $@

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo
