# Works on a fresh Debian with python3, python3-venv and make. Environments are made once and reused:
#   .venv              demo, test, check, bench
#   .venv-conformance  conformance (PyTorch inside)

PYTHON ?= python3
PIP_OPTIONS ?=
# Options for the wheel of PyTorch alone, for example --index-url https://download.pytorch.org/whl/cpu
PIP_TORCH_OPTIONS ?=
# Options for pytest: make test PYTEST="-k autograd"
PYTEST ?=
TORCH := torch==2.13.0

VENV := .venv
CONFORMANCE := .venv-conformance
PIP := -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS)

.DELETE_ON_ERROR:
.PHONY: help demo test check conformance slow bench clean

help:
	@echo "make demo         install, then train a small CNN on handwritten digits"
	@echo "make test         run the tests (no PyTorch needed)"
	@echo "make check        lint, layers, types, budgets"
	@echo "make conformance  compare with PyTorch, in an environment of its own"
	@echo "make slow         exhaustive tests; other instruction sets (needs qemu-user, cross compilers)"
	@echo "make bench        overhead of small operations, against PyTorch if .venv has it"
	@echo "make clean        remove environments and caches"

demo: $(VENV)/.demo
	$(VENV)/bin/flambeau train digits

test: $(VENV)/.dev
	$(VENV)/bin/python -m pytest $(PYTEST)

check: $(VENV)/.dev
	$(VENV)/bin/python scripts/check.py

conformance: $(CONFORMANCE)/.ready
	$(CONFORMANCE)/bin/python -m pytest -m conformance tests/conformance $(PYTEST)

slow: $(VENV)/.dev
	$(VENV)/bin/python -m pytest -m slow $(PYTEST)
	FLAMBEAU_TARGET=x86-64-v3 $(VENV)/bin/python -m pytest tests/ops tests/compiler $(PYTEST)
	FLAMBEAU_TARGET=x86-64 $(VENV)/bin/python -m pytest tests/ops tests/compiler $(PYTEST)

bench: $(VENV)/.demo
	$(VENV)/bin/python bench/overhead.py
	$(VENV)/bin/python bench/digits.py
	$(VENV)/bin/python bench/memory.py

clean:
	rm -rf $(VENV) $(CONFORMANCE) build dist .pytest_cache .ruff_cache .mypy_cache .grimp_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than pyproject.toml when its environment holds what that file asks for.
$(VENV)/bin/python:
	@PYTHON="$(PYTHON)" sh scripts/make_venv.sh $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(VENV)/bin/python $(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(VENV)/bin/python $(PIP) --editable '.[dev]'
	@touch $(VENV)/.demo $@

$(CONFORMANCE)/bin/python:
	@PYTHON="$(PYTHON)" sh scripts/make_venv.sh $(CONFORMANCE)

$(CONFORMANCE)/.ready: $(CONFORMANCE)/bin/python pyproject.toml
	$(CONFORMANCE)/bin/python $(PIP) $(PIP_TORCH_OPTIONS) $(TORCH)
	$(CONFORMANCE)/bin/python $(PIP) --editable '.[dev]'
	@touch $@
