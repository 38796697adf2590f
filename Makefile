# make demo   sets up everything and runs the main job on embedded data
# make test   sets up everything and runs the tests
# Nothing but Python 3.11 to 3.13 and make is needed; all of it lands in .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The tests that compare with output recorded elsewhere; tests/core/test_contracts.py knows them.
RECORDED := tests/geneformer tests/metrics tests/select_genes tests/train_vcc/test_written_before.py

# make test-narrow   runs what is compared with recorded output as on a processor without AVX-512
.PHONY: demo test test-narrow test-slow test-gpu test-all lint docs bench lock wheel clean

demo: $(VENV)/installed
	$(BIN)/vcell demo

test: $(VENV)/tested
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

test-slow: $(VENV)/tested
	$(BIN)/python -m pytest -m slow

# numpy's log1p and exp, and torch's sums, differ in their last bits between processors: what is
# compared with output that was recorded elsewhere must pass without the newest instructions too.
test-narrow: $(VENV)/tested
	NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" ATEN_CPU_CAPABILITY=avx2 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu" $(RECORDED)

# On a machine with an NVIDIA GPU: everything that needs one, and a table to paste into an issue.
test-gpu: $(VENV)/tested
	$(BIN)/vcell doctor
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python benchmarks/gpu.py

test-all: $(VENV)/tested
	$(BIN)/python -m pytest

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/tested
	$(BIN)/python docs/make_cli_reference.py
	$(BIN)/python docs/make_api_reference.py

# Whole processes beside their peers and the floor, on a quiet machine; fails where a ratio of
# docs/benchmarks.md does not hold. The peers: $(BIN)/python benchmarks/bench.py --install
bench: $(VENV)/tested
	$(BIN)/python benchmarks/bench.py

# Pin the whole set anew from the ranges of pyproject.toml.
lock: $(VENV)/tested
	{ echo '# The set that the tests run with; pyproject.toml has the ranges. Made by: make lock'; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.txt

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "vcell needs Python 3.11 to 3.13, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	$(BIN)/vcell doctor --compile --quiet >/dev/null || true
	@touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

wheel: $(VENV)/tested
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
