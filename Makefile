# Everything goes through one environment, .venv in this folder, made on first use.
VENV := .venv
PY := $(VENV)/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-all lint bench clean

demo: $(VENV)/ready
	$(VENV)/bin/polygraft demo

test: $(VENV)/ready-test lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist worksteal -m "not slow"

test-all: $(VENV)/ready-test lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist worksteal

lint: $(VENV)/ready-test
	$(PY) -m ruff check src tests bench
	$(PY) -m mypy

bench: $(VENV)/ready-test
	$(PY) bench/run.py

$(PY):
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "polygraft needs Python 3.11 or newer")'
	python3 -m venv $(VENV)

$(VENV)/ready: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/ready-test: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install -q -c constraints.txt -e ".[test]"
	touch $@ $(VENV)/ready

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
