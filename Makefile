# Development commands; `make help` lists them. Each installs what it needs into .venv or .venv-*. None needs root; only PyPI
# is contacted.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS := test,metrics
# gunicorn or granian
SERVER ?= gunicorn
INSTALL = python -m pip install --quiet --disable-pip-version-check
# The tests start over a hundred Python processes, each of which would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run help test coverage lint record parity drill bulk mutants soak bench screenshots lowest audit dist clean

run: $(VENV)/run-$(SERVER)  ## the service on http://127.0.0.1:8000; PORT=9000, SERVER=granian
	@$(RUN_$(SERVER))

RUN_gunicorn = echo "heroes: http://$${BIND:-127.0.0.1:$${PORT:-8000}}$${SCRIPT_NAME}/docs" && exec $(BIN)/gunicorn wsgi:app
# First the settings: with one that can't be used, Granian starts workers forever.
RUN_granian = $(BIN)/python -c "import wsgi" && echo "heroes: http://127.0.0.1:$${PORT:-8000}/docs" && \
	exec $(BIN)/granian --interface wsgi --http 1 --no-ws \
	--host 127.0.0.1 --port $${PORT:-8000} --workers $${WEB_CONCURRENCY:-1} --blocking-threads $${GUNICORN_THREADS:-3} \
	--respawn-failed-workers --respawn-interval 10 --workers-kill-timeout 30 wsgi:app

help:  ## this list
	@awk -F ':.*  ## ' '/^[a-z]+:.*  ## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

test: $(VENV)/test  ## every test, on SQLite and on PostgreSQL
	$(BIN)/python -m pytest

coverage: $(VENV)/test  ## every test; fail unless they run every line and branch
	$(BIN)/python -m pytest --cov --cov-report=term

lint: $(VENV)/dev  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

record: $(VENV)/test .venv-oracle/done  ## record the tutorial's responses again
	$(BIN)/python -m tests.contract.record

parity: $(VENV)/test .venv-oracle/done  ## compare 10,000 random requests with the tutorial, four times
	for seed in $${SEEDS:-1 2 3}; do $(BIN)/python -m tests.contract.parity --requests 10000 --seed $$seed || exit 1; done
	$(BIN)/python -m tests.contract.parity --requests 10000 --server granian

drill: $(VENV)/test  ## kill workers, servers and a primary under load, and cut hosts off
	$(BIN)/python -m tests.drills

bulk: $(VENV)/test  ## a million heroes in and out
	$(BIN)/python -m tests.bulk

mutants: .venv-mutants/done  ## change the code in small ways, and count the changes that no test notices
	.venv-mutants/bin/mutmut run
	.venv-mutants/bin/python -m tests.mutants

soak: $(VENV)/dev  ## ten minutes of mixed load through nginx
	$(BIN)/python -m tests.soak

bench: .venv-bench/done .venv-oracle/bench  ## heroes and its peers, on gunicorn, Granian and uvicorn
	.venv-bench/bin/python -m benchmarks $(BENCH)

screenshots: $(VENV)/test  ## the picture in the README
	$(BIN)/python -m docs.screenshots

lowest: .venv-lowest/done  ## the tests with the lowest versions that setup.cfg allows
	.venv-lowest/bin/python -m pytest

# Strict: fail if a package could not be looked up.
audit: $(VENV)/dev  ## known vulnerabilities of what is installed
	$(BIN)/pip freeze --exclude-editable >$(VENV)/frozen
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)/frozen

dist: $(VENV)/dev  ## the sdist and the wheel
	$(BIN)/python -m build

clean:  ## remove all environments and builds
	rm -rf $(VENV) .venv-* mutants build dist *.egg-info

%/pyvenv.cfg:
	$(PYTHON) -m venv $(@D)

$(VENV)/run-gunicorn: $(VENV)/pyvenv.cfg setup.cfg pyproject.toml
	$(BIN)/$(INSTALL) --editable .
	@touch $@

$(VENV)/run-granian: $(VENV)/pyvenv.cfg setup.cfg pyproject.toml
	$(BIN)/$(INSTALL) --editable '.[granian]'
	@touch $@

$(VENV)/test: $(VENV)/pyvenv.cfg setup.cfg pyproject.toml
	$(BIN)/$(INSTALL) --editable '.[$(TESTS)]'
	@touch $@

$(VENV)/dev: $(VENV)/pyvenv.cfg setup.cfg pyproject.toml
	$(BIN)/$(INSTALL) --editable '.[dev,$(TESTS)]'
	@touch $@

.venv-oracle/done: .venv-oracle/pyvenv.cfg tests/contract/oracle-requirements.txt
	.venv-oracle/bin/$(INSTALL) --requirement tests/contract/oracle-requirements.txt
	@touch $@

# The tutorial is also measured on Granian, in the environment that it runs from.
.venv-oracle/bench: .venv-oracle/done .venv-bench/done
	.venv-oracle/bin/$(INSTALL) "granian==$$(.venv-bench/bin/python -c 'import granian; print(granian.__version__)')"
	@touch $@

.venv-mutants/done: .venv-mutants/pyvenv.cfg setup.cfg pyproject.toml
	.venv-mutants/bin/$(INSTALL) --editable '.[mutants,$(TESTS)]'
	@touch $@

.venv-bench/done: .venv-bench/pyvenv.cfg setup.cfg pyproject.toml
	.venv-bench/bin/$(INSTALL) --editable '.[bench]'
	@touch $@

.venv-lowest/done: .venv-lowest/pyvenv.cfg setup.cfg pyproject.toml
	.venv-lowest/bin/$(INSTALL) uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[$(TESTS)]'
	@touch $@
