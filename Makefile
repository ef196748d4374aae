# make test | make bench [QUICK=1] | make docs | make clean
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: test bench overhead docs clean

test: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest

bench: $(READY)
	$(PY) -m benchmarks $(if $(QUICK),--quick)

overhead: $(READY)
	$(PY) -m benchmarks.overhead

docs: $(READY)
	$(PY) -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	@touch $(READY)

clean:
	rm -rf $(VENV) docs/_build docs/_generated benchmarks/output build *.egg-info
