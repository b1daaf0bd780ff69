# make demo | make test | make bench | make lint      each sets itself up on first use
#
#   make test PY=python3.12                            another Python (>= 3.11)
#   make demo TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
#   make test VENV=$CONDA_PREFIX                       an environment that exists; a torch in it is kept

PY    ?= python3
VENV  ?= .venv
TORCH ?= torch==2.13.0

BIN  := $(VENV)/bin
BASE := $(VENV)/.equitorch-base
TEST := $(VENV)/.equitorch-test
PIP  := "$(BIN)/python" -m pip install --disable-pip-version-check --quiet

.PHONY: demo test bench lint clean
.DEFAULT_GOAL := test

demo: $(BASE)
	"$(BIN)/equitorch" demo

test: $(TEST)
	OMP_NUM_THREADS=1 "$(BIN)/pytest" -q -n 2

bench: $(TEST)
	"$(BIN)/python" -m benchmarks

lint: $(TEST)
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	"$(BIN)/lint-imports"

# Torch first, so that nothing after it chooses another one: an unpinned torch may pull gigabytes of CUDA.
$(BASE): pyproject.toml constraints.txt
	@test -x "$(BIN)/python" || $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "equitorch needs Python >= 3.11; name one: make PY=python3.12"; exit 1; }
	@test -x "$(BIN)/python" || { echo "Making $(VENV)"; $(PY) -m venv "$(VENV)"; }
	@echo "Installing equitorch and what it needs into $(VENV) (once)"
	@grep -v -e '^torch==' -e '^triton==' constraints.txt > "$(VENV)/constraints.txt"
	@"$(BIN)/python" -c "import torch" 2>/dev/null || $(PIP) $(TORCH)
	@$(PIP) -c "$(VENV)/constraints.txt" -e .
	@touch "$@"

# A CUDA torch brings its own Triton; a CPU torch gets the pinned one, for the kernel tests in the interpreter.
$(TEST): $(BASE)
	@echo "Installing the test tools into $(VENV) (once)"
	@"$(BIN)/python" -c "import triton" 2>/dev/null || $(PIP) "$$(grep '^triton==' constraints.txt)" \
	  || echo "no Triton for this platform: its tests will be skipped"
	@$(PIP) -c "$(VENV)/constraints.txt" -e ".[test]"
	@touch "$@"

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
