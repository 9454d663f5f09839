# `make demo` and `make test` do all the set-up on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint check-all soak parity wheel clean

demo: .venv/ready
	$(BIN)/unweave demo

# Two processes of one thread each: 4:45 where one process of two threads takes 7:30. In the order of tests/conftest.py:
# xdist would begin with the files of most tests, and leave the notebooks to one process at the end.
test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not soak"

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check-all: .venv/ready
	$(BIN)/python -m pytest -m "not soak"

soak: .venv/ready
	$(BIN)/python -m pytest -m soak

# Foreign libraries in an environment of their own, and what they say of the networks in tests/goldens.
parity: .venv/ready
	$(PYTHON) -m venv .parity
	.parity/bin/python -m pip install --quiet -c .venv/constraints.txt torch numpy safetensors pillow tqdm matplotlib scikit-learn
	.parity/bin/python -m pip install --quiet --no-deps -r tests/goldens/requirements.txt
	cd tests/goldens && ../../.parity/bin/python maps.py && ../../.parity/bin/python relevance.py

# The wheel, imported in an environment that holds nothing else of ours.
wheel: .venv/ready
	sh .ci/check_wheel

define CONSTRAINTS
from importlib.metadata import PackageNotFoundError, version
for line in open("constraints.txt"):
    name = line.partition("==")[0]
    try:
        print(f"{name}=={version(name)}" if name in ("torch", "triton") else line.strip())
    except PackageNotFoundError:
        print(line.strip())
endef
export CONSTRAINTS

# A torch or a triton that is already installed is kept, whatever its version; else the pinned torch comes first, so that
# nothing else pulls another. Everything installs under the constraints.
.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || if $(PYTHON) -c "import torch" 2>/dev/null; \
		then $(PYTHON) -m venv --system-site-packages .venv; else $(PYTHON) -m venv .venv; fi
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -c "$$CONSTRAINTS" > .venv/constraints.txt
	$(BIN)/python -m pip install --quiet -c .venv/constraints.txt -e ".[demo,dev]"
	touch .venv/ready

clean:
	rm -rf .venv build dist *.egg-info runs
