# `make demo` and `make test` set up their own virtual environment in .venv; PYTHON chooses the interpreter for it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most of the time goes into compiling, on one core for each test; a file's tests share what they have compiled.
PYTEST := $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile

.PHONY: demo test browser parity heavy legs lint clean

demo: $(VENV)/installed
	$(BIN)/samjax demo --out demo

test: $(VENV)/installed-test
	$(PYTEST) -m "not parity and not heavy and not browser"

# As a person uses the page, in Debian's Chromium. Each process has a server and a browser of its own.
browser: $(VENV)/installed-test
	SAMJAX_BROWSER=required $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile -m browser tests/app/browser

# Against Meta's PyTorch code and transformers. PyTorch comes first, and for the CPU; segment-anything-py would ask for
# torchvision, of which the tests replace the few functions that it uses; segment-anything-hq for timm, likewise.
parity: $(VENV)/installed-parity
	$(PYTEST) -m "parity and not heavy"

# Also compiles for TPUs ahead of time, which needs libtpu and no TPU.
heavy: $(VENV)/installed-heavy
	JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 $(PYTEST) -m heavy

# Under settings of JAX that programs choose: 64 bits, and functions that are not compiled. The third, rank promotion as
# an error, holds in every test (tests/conftest.py).
legs: $(VENV)/installed-test
	JAX_ENABLE_X64=1 $(PYTEST) tests/legs/other_settings.py tests/test_golden.py tests/convert/test_round_trips.py \
		tests/evaluation/protocols/test_points.py tests/train/tasks/interactive/test_validation.py
	JAX_DISABLE_JIT=1 $(PYTEST) tests/legs/other_settings.py

lint: $(VENV)/installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

# The links are for pyright and editors: pyproject.toml, [tool.pyright].
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	mkdir -p $(VENV)/source/samjax
	ln -sfn ../../../samjax/__init__.py ../../../convert ../../../train $(VENV)/source/samjax
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/installed-parity: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-deps segment-anything-py==1.0.1 segment-anything-hq==0.3
	$(BIN)/python -m pip install --quiet "transformers>=5,<6"
	touch $@

$(VENV)/installed-heavy: $(VENV)/installed-parity
	$(BIN)/python -m pip install --quiet libtpu
	touch $@

# With the tests' packages: pyright reads the types of everything that is imported, PyTorch apart.
$(VENV)/installed-lint: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --editable ".[lint]"
	touch $@

clean:
	rm -rf .venv* .pytest_cache demo build *.egg-info
