# make test | make test-peers | make bench [QUICK=1] | make docs | make clean
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
PEERS ?= .venv-peers
READY := $(VENV)/.ready

.PHONY: test test-peers bench overhead docs clean

# Bytecode is kept, so that each process of the tests need not compile everything anew.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest

# Our samplers against those of diffusers, k-diffusion and azula. The last two ask for torchvision,
# which they do not need for sampling: --no-deps.
test-peers: $(PEERS)/.ready
	$(PEERS)/bin/python -m pytest -n 0 -W ignore::DeprecationWarning tests/peers

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

$(PEERS)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,peers]"
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --no-deps \
		azula==0.11.1 k-diffusion==0.1.1.post1
	@touch $(PEERS)/.ready

clean:
	rm -rf $(VENV) $(PEERS) docs/_build docs/_generated benchmarks/output build *.egg-info
