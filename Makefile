# One command per chore. Each makes the environment that it needs; nothing wants root or anything outside this folder
# but PyPI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS := test,metrics,redoc
INSTALL = python -m pip install --quiet --disable-pip-version-check
# The tests start more than a hundred Pythons, each of which would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test lint record parity drill bulk soak bench screenshots lowest audit dist clean

run: $(VENV)/run  ## the service on http://127.0.0.1:8000
	@echo "heroes: http://127.0.0.1:$${PORT:-8000}/docs"
	@exec $(BIN)/gunicorn wsgi:app

test: $(VENV)/test  ## every test, on SQLite and on PostgreSQL
	$(BIN)/python -m pytest --cov --cov-report=term

lint: $(VENV)/dev  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

record: $(VENV)/test .venv-oracle/done  ## records the tutorial's answers again
	$(BIN)/python -m tests.contract.record

parity: $(VENV)/test .venv-oracle/done  ## 10,000 random requests to the tutorial and to us, thrice
	for seed in $${SEEDS:-1 2 3}; do $(BIN)/python -m tests.contract.parity --requests 10000 --seed $$seed || exit 1; done

drill: $(VENV)/test  ## kills workers, servers and a primary under load, and cuts hosts off
	$(BIN)/python -m tests.drills

bulk: $(VENV)/test  ## a million heroes in and out
	$(BIN)/python -m tests.bulk

soak: $(VENV)/dev  ## ten minutes of mixed load through nginx
	$(BIN)/python -m tests.soak

bench: .venv-bench/done .venv-oracle/done  ## heroes beside its peers
	.venv-bench/bin/python -m benchmarks

screenshots: $(VENV)/test  ## the picture in the README
	$(BIN)/python -m docs.screenshots

lowest: .venv-lowest/done  ## the tests with the lowest versions that setup.cfg allows
	.venv-lowest/bin/python -m pytest

# Strict: what couldn't be looked up isn't harmless.
audit: $(VENV)/dev  ## known vulnerabilities of what is installed
	$(BIN)/pip freeze --exclude-editable >$(VENV)/frozen
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)/frozen

dist: $(VENV)/dev  ## the sdist and the wheel
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info

%/pyvenv.cfg:
	$(PYTHON) -m venv $(@D)

$(VENV)/run: $(VENV)/pyvenv.cfg setup.cfg pyproject.toml
	$(BIN)/$(INSTALL) --editable '.[redoc]'
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

.venv-bench/done: .venv-bench/pyvenv.cfg setup.cfg pyproject.toml
	.venv-bench/bin/$(INSTALL) --editable '.[bench]'
	@touch $@

.venv-lowest/done: .venv-lowest/pyvenv.cfg setup.cfg pyproject.toml
	.venv-lowest/bin/$(INSTALL) uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[$(TESTS)]'
	@touch $@
