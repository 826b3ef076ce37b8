# besom's commands, the same for people and for CI. Each runs in .venv, which .ci/venv makes from
# requirements.lock and renews when the lock or pyproject.toml changed.
#
#   make sweep PYTHON=python3.12     another interpreter (3.11, 3.12 or 3.13)
#   make test ARGS="-k geometry"     more arguments for the command itself

BIN := .venv/bin
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url
LOCKS := requirements.lock .ci/hydra-1.3.lock .ci/hydra-1.4.lock .ci/audit.lock benchmarks/peers.lock

.PHONY: help venv sweep ui notebook test coverage test-services prove torture bench bench-page bench-peers audit lint lock

help: ## this list
	@awk -F ': .*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

venv: ## .venv with the locked packages and besom itself, editable
	@sh .ci/venv $(firstword $(MAKECMDGOALS))

sweep: venv ## the first sweep: 12 trials on 5,000 digits
	@$(BIN)/besom sweep quick $(ARGS)

ui: venv ## the MLflow UI on the store
	@$(BIN)/besom ui $(ARGS)

notebook: venv ## docs/lesson.ipynb anew, in place, on the store's sweep quick, which it makes or ends first
	@$(BIN)/besom sweep quick
	@$(BIN)/python .ci/notebook.py docs/lesson.ipynb

test: venv ## the core suite, two files at a time
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile $(ARGS)

coverage: venv ## the same, with what it covers; half as long again
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --cov --cov-report=term $(ARGS)

test-services: venv ## the tests that need a browser, a server or another environment, and the longer ones
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile -m 'service and not torture' $(ARGS)

prove: venv ## 50 trials of every kind, each again in a fresh process, on lanes of 1 and of 2 threads; half an hour
	@$(BIN)/python benchmarks/prove.py $(ARGS)

torture: venv ## every fault at every point of a sweep, then kills at random times, and what was lost; two hours
	@$(BIN)/python benchmarks/torture.py $(ARGS)
	@$(BIN)/python -m pytest -m torture tests/faults

bench: venv ## every benchmark, then docs/benchmarks.md; hours; BESOM_MNIST_NPZ names the whole MNIST
	@sh .ci/venv bench .venv-hydra-1.4 .ci/hydra-1.4.lock
	@.venv-hydra-1.4/bin/python benchmarks/overhead.py
	@$(BIN)/python benchmarks/epoch.py
	@$(BIN)/python benchmarks/start.py
	@$(BIN)/python benchmarks/looking.py
	@$(BIN)/python benchmarks/memory.py
	@$(BIN)/python benchmarks/pruning.py
	@$(BIN)/python benchmarks/engines.py
	@$(BIN)/python benchmarks/scale.py
	@$(MAKE) bench-peers
	@$(MAKE) bench-page

bench-page: venv ## docs/benchmarks.md and its charts out of what was measured last
	@$(BIN)/python benchmarks/page.py

bench-peers: ## a sweep's wall clock beside a notebook, KerasTuner, Ray Tune and Hydra with joblib
	@sh .ci/venv bench-peers
	@sh .ci/venv bench-peers .venv-peers benchmarks/peers.lock bare
	@$(BIN)/python benchmarks/peers.py $(ARGS)

lint: venv ## ruff and mypy, as strict as pyproject.toml says
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

audit: ## the known vulnerabilities of every package that a lock file pins, by PyPI's advisories; needs the network
	@sh .ci/venv audit .venv-audit .ci/audit.lock bare
	@.venv-audit/bin/python .ci/audit.py $(LOCKS)

lock: ## every lock file anew from what is declared; ARGS=--upgrade takes newer versions; needs uv
	@command -v uv >/dev/null || { echo "besom: make lock needs uv, which is not on PATH. Try: pip install uv" >&2; exit 2; }
	@$(COMPILE) --all-extras --group dev pyproject.toml --output-file requirements.lock $(ARGS)
	@$(COMPILE) .ci/hydra-1.3.in --output-file .ci/hydra-1.3.lock $(ARGS)
	@$(COMPILE) .ci/hydra-1.4.in --output-file .ci/hydra-1.4.lock $(ARGS)
	@$(COMPILE) .ci/audit.in --output-file .ci/audit.lock $(ARGS)
	@$(COMPILE) benchmarks/peers.in --output-file benchmarks/peers.lock $(ARGS)
