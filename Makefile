# Everything runs in an environment of its own, made on first use from the exact pins.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests run beside each other, one more than cores because some wait for Ray; each would start a
# thread per core.
test test-all golden: export OMP_NUM_THREADS = 1

.PHONY: help demo test test-all check format golden wheel clean

help:
	@echo "make demo      train, sweep, compare and serve one-step models of handwritten digits"
	@echo "make test      run the tests"
	@echo "make test-all  run the slow tests too, for hours: learning, clusters, servers"
	@echo "make check     formatter, linter, docstrings, types"
	@echo "make format    format the code"
	@echo "make golden    record the golden trajectories again"
	@echo "make wheel     build the wheel"

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"onestep needs Python >= 3.11, got {sys.version}"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# Threads that wait must not spin: with other processes on the cores that costs severalfold.
demo: export OMP_WAIT_POLICY = PASSIVE
demo: $(VENV)/.installed
	@$(BIN)/python examples/demo.py

test: $(VENV)/.installed
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.installed
	$(BIN)/pytest -m "not gpu"

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/flake8 methods platform sweeps serving
	@# The package is its own root: mypy finds it by name through a link.
	@mkdir -p build/typed && ln -sfn $(CURDIR) build/typed/onestep
	cd build/typed && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
		--namespace-packages --explicit-package-bases \
		-p onestep.methods -p onestep.platform -p onestep.sweeps -p onestep.serving \
		-p onestep.benchmarks

format: $(VENV)/.installed
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

golden: $(VENV)/.installed
	$(BIN)/python tests/record_golden.py

wheel: $(VENV)/.installed
	$(BIN)/python -m build --wheel

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
