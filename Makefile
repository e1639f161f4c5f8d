# `make` alone says what there is.  ARGS goes to the program that a target runs:  make test ARGS="-k lease -x"
# Another interpreter:  make setup PYTHON=python3.12

PYTHON ?= python3
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test check specs simulate mutate bench proto lock clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything that is needed, once

demo: $(READY) ## show Silo at work
	.venv/bin/silo demo $(ARGS)

serve: $(READY) ## start a broker, its data in ./silo-data
	.venv/bin/silo serve $(ARGS)

test: $(READY) ## run the tests, as many at once as there are cores, at most four; one at a time with ARGS=-n0
	.venv/bin/pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal $(ARGS)

check: $(READY) ## format, lint, types, generated code, pages, names of invariants: only looks, changes nothing
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/python tools/gen_proto.py --check
	.venv/bin/python -m tools.gen_config_docs --check
	.venv/bin/python -m tools.gen_event_docs --check
	.venv/bin/python -m tools.gen_api_docs --check
	.venv/bin/python -m tools.check_specs

specs: $(READY) ## run the formal models with the Alloy Analyzer; needs Java, and Maven once
	.venv/bin/python tools/specs $(ARGS)

simulate: $(READY) ## run brokers in simulated worlds, in which everything goes wrong that can
	.venv/bin/python tools/simulate --seeds 200 $(ARGS)

mutate: $(READY) ## put deliberate bugs into copies, and see whether the simulator finds them
	.venv/bin/python tools/mutate $(ARGS)

bench: $(READY) ## measure
	.venv/bin/python tools/bench $(ARGS)

proto: $(READY) ## generate silo/pb/ from proto/
	.venv/bin/python tools/gen_proto.py

lock: $(READY) ## pin what pyproject.toml asks for in requirements.lock; newer versions with ARGS=--upgrade
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes \
		--custom-compile-command "make lock" --output-file requirements.lock $(ARGS) pyproject.toml

clean: ## remove caches and build output; .venv and silo-data stay
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find silo tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# The lock names every package with its hash; Silo itself comes last, from this folder.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Silo needs Python 3.11 or later, and '$(PYTHON)' is none.  Try: make setup PYTHON=python3.11" >&2; \
		exit 1; }
	[ -x .venv/bin/pip ] || $(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
