# Everything a person or CI runs. Each target installs what it needs into .venv first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
# mypy-protobuf's plugin must be found by protoc
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_OFFLINE := 1

.PHONY: help demo demo-rlhf pair test check bench nightly proto docs site format clean
help: ## Say what there is.
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Shardwork needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY) ## Run the main job for real: a coordinator, three workers, a slow one, a killed one, an adapter.
	$(BIN)/python deploy/demo/run.py

demo-rlhf: $(READY) ## Align a small model for real: answers, simulated people over the web API, a reward model, PPO; twice over.
	$(BIN)/python deploy/demo/rlhf.py

pair: $(READY) ## The demo on two coordinators over one PostgreSQL, of which one is killed as well.
	$(BIN)/python deploy/demo/run.py --postgres --coordinators 2

test: $(READY) ## All tests that gate a change (20 minutes on 2 cores), a file to a process; three, because half of their time is waiting.
	$(BIN)/python -m pytest -m "not nightly" -n 3 --dist loadfile

nightly: $(READY) ## The longer campaigns as well.
	$(BIN)/python -m pytest

check: $(READY) ## Format, lint, types, import contracts, drift of stubs and reference.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m tests.house.stubs
	$(BIN)/python docs/generate.py --check

bench: $(READY) ## Measure, with ratios against raw limits in the same run; writes bench/results/.
	for each in bench/*.py; do echo "== $$each"; $(BIN)/python $$each || exit 1; done

proto: $(READY) ## Regenerate the stubs from proto/.
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. --mypy_out=quiet:. \
		--mypy_grpc_out=quiet:. proto/shardwork/v1/*.proto

docs: $(READY) ## Regenerate docs/reference/ from the code.
	$(BIN)/python docs/generate.py

site: $(READY) ## Build the documentation site into build/site; any warning fails.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

format: $(READY) ## Format and fix what can be fixed.
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean: ## Remove what was installed and built.
	rm -rf .venv demo-out .mypy_cache .ruff_cache .pytest_cache
