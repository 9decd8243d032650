# make demo   run the image example on this machine      make check  lint and strict types
# make test   every test, in parallel                    make bench  speed, beside its peers
# make docs   the documentation, into site/index.html    make dist   wheel and sdist, into dist/
# make aws-smoke ARGS='--bucket B'   20 jobs on a real account, for at most $0.05: asks before
# make pictures   a walk through page and report in a browser, as screenshots in pictures/
.PHONY: demo test check bench aws-smoke docs pictures dist clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

# The product alone, with what the example needs: quick, for the demo
$(VENV)/.product: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . \
		    --requirement src/distributed_something/examples/images/requirements.txt
	$(BIN)/python -m compileall -q src/distributed_something
	touch $@

# And what tests, checks and benchmarks need
$(VENV)/.developer: $(VENV)/.product
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group check
	$(PYTHON) -m venv $(VENV)/ministack  # of its own: it insists on one version of botocore
	$(VENV)/ministack/bin/python -m pip install --quiet --disable-pip-version-check 'ministack>=1.5,<1.6' boto3
	touch $@

demo: $(VENV)/.product
	rm -rf demo
	$(BIN)/ds init demo
	$(BIN)/ds -C demo run demo/files/exampleJob.json

test: $(VENV)/.developer
	$(BIN)/python -m pytest --numprocesses 4 --dist worksteal $(ARGS)

check: $(VENV)/.developer docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Remakes the pages that are made from the program, then builds the site. Every warning is an error: a link
# that leads nowhere, a page or a name of the API that is not there
docs: $(VENV)/.developer
	for page in commands config house; do $(BIN)/python docs/make_$$page.py || exit 1; done
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict

pictures: $(VENV)/.developer
	rm -rf pictures
	PYTHONPATH=tests $(BIN)/python tests/pictures.py $(ARGS)

dist: $(VENV)/.developer
	rm -rf dist
	$(BIN)/python -m build

bench: $(VENV)/.developer
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m bench $(ARGS)

aws-smoke: $(VENV)/.developer
	$(BIN)/python -m bench.aws_smoke $(ARGS)

clean:
	rm -rf $(VENV) demo site dist pictures
