# make demo   run the image example on this machine      make check  lint and strict types
# make test   every test, in parallel                    make bench  speed, beside its peers
# make docs   the documentation, into site/index.html    make dist   wheel, sdist, list of parts
# make programs   CellProfiler and ome-zarr, which the tests of their examples run (Python 3.11, a C compiler, a JDK)
# make locked   .venv from the lock files alone, each package by its hash       make lock   new lock files
# make aws-smoke ARGS='--bucket B'   20 jobs on a real account, for at most $0.05: asks before
# make pictures   a walk through page and report in a browser, as screenshots in pictures/
.PHONY: demo test programs check bench aws-smoke docs pictures dist lock locked clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
MINISTACK := 'ministack>=1.5,<1.6' boto3

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
	$(VENV)/ministack/bin/python -m pip install --quiet --disable-pip-version-check $(MINISTACK)
	touch $@

# The same packages, each in the version and with the hash of the lock files: what the project's builds use
locked:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement .ci/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(PYTHON) -m venv $(VENV)/ministack
	$(VENV)/ministack/bin/python -m pip install --quiet --require-hashes --requirement .ci/ministack.txt
	touch $(VENV)/.product $(VENV)/.developer

# Newest versions that pyproject.toml allows, with markers of each Python and system
lock: $(VENV)/.developer
	$(BIN)/python -m pip install --quiet --group release
	$(LOCK) --upgrade --group check --group release pyproject.toml src/distributed_something/examples/images/requirements.txt \
		    --output-file .ci/requirements.txt
	printf '%s\n' $(MINISTACK) | $(LOCK) --upgrade - --output-file .ci/ministack.txt

# Environments of their own: CellProfiler 4.2 takes no newer NumPy, and ome-zarr's S3 insists on one botocore. The
# lists are not renewed by `make lock`. CellProfiler's leaves out what only its windows need
programs: $(VENV)/.programs
$(VENV)/.programs: .ci/omezarr.txt .ci/cellprofiler.txt .ci/cellprofiler-build.txt
	$(PYTHON) -m venv $(VENV)/omezarr
	$(VENV)/omezarr/bin/python -m pip install --quiet --require-hashes --requirement .ci/omezarr.txt
	$(PYTHON) -m venv $(VENV)/cellprofiler
	$(VENV)/cellprofiler/bin/python -m pip install --quiet --require-hashes --no-deps \
		    --requirement .ci/cellprofiler-build.txt
	$(VENV)/cellprofiler/bin/python -m pip install --quiet --require-hashes --no-deps --no-build-isolation \
		    --requirement .ci/cellprofiler.txt
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

# The list of parts (CycloneDX) has the versions of the lock file: those that the tests ran with
dist: $(VENV)/.developer
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m pip install --quiet --group release
	mkdir -p build && sed "s/^dynamic = .*/version = '$$($(BIN)/python -m hatchling version)'/" pyproject.toml >build/pyproject.toml
	$(LOCK) --all-extras --constraint .ci/requirements.txt --output-file build/product.txt pyproject.toml >/dev/null
	$(BIN)/cyclonedx-py requirements --pyproject build/pyproject.toml --output-reproducible \
		    --output-file dist/sbom.cdx.json build/product.txt

bench: $(VENV)/.developer
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m bench $(ARGS)

aws-smoke: $(VENV)/.developer
	$(BIN)/python -m bench.aws_smoke $(ARGS)

clean:
	rm -rf $(VENV) demo site dist build pictures
