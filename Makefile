# `make demo` shows what the package does; `make test` proves that it works. Both install what they need.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JUPYTER := $(BIN)/jupyter-execute

# What XLA compiled is kept beside the packages: a file that compiled for most of its two minutes
# took 45 seconds the second time.
export JAX_COMPILATION_CACHE_DIR ?= $(abspath $(VENV))/compiled
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

.PHONY: demo test test-all setup check notebooks docs clean

demo: setup
	$(BIN)/jaxviz demo --photos

setup: $(VENV)/.has-photos

# Most of the time goes into compiling, and most of that into making programs fast that run once:
# `test` leaves it out. `test-all` compiles as users do.
test: export XLA_FLAGS ?= --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0
test: $(VENV)/.has-test
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

test-all: $(VENV)/.has-test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or not slow" $(TESTS)

check: $(VENV)/.has-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest --doctest-modules jaxviz --ignore=jaxviz/models/train_mnist_cnn.py

docs: $(VENV)/.has-docs
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html
	@echo "open docs/_build/html/index.html"

notebooks: $(VENV)/.has-dev
	$(JUPYTER) notebooks/*.ipynb

clean:
	rm -rf $(VENV) jaxviz-demo build *.egg-info docs/_build docs/api docs/api.md docs/notebooks

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxviz needs Python 3.11 or newer; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# One marker file per extra: made again only when pyproject.toml has changed.
$(VENV)/.has-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
