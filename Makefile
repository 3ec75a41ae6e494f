# make demo | test | sanitize | tables | bench | campaign | lint | format | docs | clean; `make help` says what each does.

SHELL := bash
PYTHON ?=
PYTHONS := python3.13 python3.12 python3.11
BIN := .venv/bin
CORES ?= all
SEED ?= 1

# What these hold is meant for other Pythons than that of .venv.
unexport PYTHONPATH PYTHONHOME

.PHONY: help setup setup-dev demo test test-fast test-slurm sanitize tables bench campaign lint format docs lock clean

help:
	@echo 'make setup      make .venv from the locked packages: about 3 GB to download, 5.5 GB on disk'
	@echo 'make demo       set up, run the whole workflow on handwritten digits, say where the report is'
	@echo 'make test       set up, run all tests'
	@echo 'make test-slurm the workflow on a real Slurm with two pretend GPUs, which it installs; needs root'
	@echo 'make sanitize   tests of the compiled kernels under the address and undefined-behaviour sanitizers'
	@echo 'make tables     the paper: every table that config.yaml asks for (days on a GPU)'
	@echo 'make bench      the benchmark of the training step, about a quarter of an hour on two cores'
	@echo 'make campaign   what the tests do in short, at length, on two cores: 300 kills (1 hour at most), chaos (1 hour),'
	@echo '                the same bits (2 hours), the estimate beside the truth, 100 mutants drawn by SEED (8 hours; the next'
	@echo '                call goes on with the rest)'
	@echo 'make lint       ruff, mypy, deptry, snakefmt, snakemake --lint'
	@echo 'make format     format Python and Snakemake files'
	@echo 'make docs       write what is generated from the schema: config/README.md, config/schema.json, the readings, docs/results.md'
	@echo 'make lock       resolve requirements/ again from pyproject.toml'
	@echo 'make clean      remove the environment and caches; results and data stay'

# Any Python 3 starts the set-up, which looks for one that fits, or takes the one that PYTHON names.
define set-up
@for python in '$(PYTHON)' python3 $(PYTHONS) python; do \
	if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null; \
	then exec "$$python" requirements/set_up.py --python='$(PYTHON)' $(1); fi; \
done; \
echo 'make setup: there is no Python here; $(firstword $(PYTHONS)) is the newest that fits.' >&2; \
echo 'Install it (sudo apt install $(firstword $(PYTHONS))-venv; on a Mac: brew install $(subst python,python@,$(firstword $(PYTHONS)))).' >&2; \
exit 1
endef

setup:
	$(call set-up)

setup-dev:
	$(call set-up,--dev)

demo: setup
	@$(BIN)/snakemake --cores 2 --configfile config/demo.yaml --quiet host reason rules progress \
		2> >(grep -vE '^(Select jobs to execute|Execute [0-9]+ jobs)' >&2)
	@echo
	@echo 'The report: results/demo/report/index.html'

test: setup-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not timing and not campaign'

test-fast: setup-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow and not workflow and not timing and not campaign'

test-slurm: setup-dev
	tests/slurm/local_slurm.sh install
	$(BIN)/python -m pytest tests/slurm

# Python itself is not built with the sanitizers, so their runtimes are loaded ahead of it. pytest leaves the standard
# error of the process alone: that is where the sanitizers report before they end it.
SANITIZE := -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
sanitize: setup-dev
	CXX='$(CXX)' EAST_KERNEL_FLAGS='$(SANITIZE)' \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
		$(BIN)/python -m pytest --capture=sys -p no:cacheprovider \
		tests/unit/test_reference.py tests/unit/test_engine_small_kernels.py tests/unit/test_engine_sparse.py \
		-k "not gpu"

tables: setup
	$(BIN)/snakemake --cores $(CORES) tables

bench: setup
	$(BIN)/python -m benchmarks.step

campaign: setup-dev
	timeout 1h $(BIN)/python -m benchmarks.kills
	timeout 1h $(BIN)/python -m benchmarks.chaos
	timeout 2h $(BIN)/python -m benchmarks.same_bits
	timeout 1h $(BIN)/python -m benchmarks.gpu --dry-run --minutes 50 --out .campaign
	timeout 1h $(BIN)/python -m pytest -m 'timing or campaign'
	timeout 4h $(BIN)/python -m benchmarks.faults
	timeout 8h $(BIN)/python -m benchmarks.mutants --seed $(SEED)

# That no rule names a container is meant: users build the image of the Containerfile, and it is published nowhere.
lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --platform linux
	$(BIN)/mypy --platform darwin
	$(BIN)/mypy --strict requirements/set_up.py
	$(BIN)/deptry .
	$(BIN)/snakefmt --check Snakefile rules workflow
	! $(BIN)/snakemake --lint 2>&1 | grep -E '^    \* |Error|Exception' | grep -v 'Specify a conda environment or container'

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules workflow

docs: setup
	$(BIN)/python -m east.config.reference
	$(BIN)/python docs/columns.py

lock:
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --no-annotate -o requirements/lock.txt
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --no-annotate -c requirements/lock.txt -o requirements/dev.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .snakemake east.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
