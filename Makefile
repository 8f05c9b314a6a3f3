# Each target does its own set-up on a bare machine with Python >= 3.11. An environment that exists
# in .venv is used, and any torch from 2.11 on that is installed there is kept.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
READY := $(VENV)/.ready

.PHONY: demo test proofs lint types format clean

demo: $(READY)  ## the main job on the embedded digits: five networks, 20 seconds each, in 4 minutes
	$(BIN)/towernet compare digits --size 64 --minutes 0.33 --out runs/demo --models \
		towernet_patch,resnet18,mobilenet_v2,mobilenet_v2+shuffle,shufflenet_v2_x1_0

# WORKERS processes share the tests, each with one thread and about 2 GB of memory. Tests on the
# larger image sets need TOWERNET_DATA.
test: $(READY)  ## the tests: a few minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not proof' -n $(WORKERS) --dist loadfile

proofs: $(READY)  ## the long tests: real kills, every network, the README's commands, browsers
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m proof -n $(WORKERS) --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('towernet needs Python 3.11 or newer') if sys.version_info < (3, 11) else None"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	if $(BIN)/python -c 'import torch, torchvision' 2>/dev/null; \
		then grep -v '^torch' constraints.txt; else cat constraints.txt; fi > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint $(VENV)/constraints.txt
	touch $(READY)
