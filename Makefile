# Everything runs in .venv, which scripts/setup makes from requirements.lock and leaves alone while it is current.
# Name another interpreter with `make PYTHON=/path/to/python3.12 test`; pass pytest options with PYTEST_FLAGS.
export PYTHON

BIN := .venv/bin
# One resolution for Python 3.12 and later on every platform: with hashes, without any registry's name.
COMPILE = UV_SYSTEM_CERTS=1 $(BIN)/uv pip compile --quiet --universal --python-version 3.12 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check-memory lint format bench lock clean

help:
	@echo 'make demo     classify scanned digits, rank sentences with real weights'
	@echo 'make test     lint, then every test'
	@echo 'make check-memory  run programs of archives under Miri, AddressSanitizer and valgrind; minutes'
	@echo 'make lint     ruff, mypy, rustfmt, clippy and buildifier'
	@echo 'make format   format and apply safe fixes'
	@echo 'make bench    every benchmark (TORCH=/path/to/python: with PyTorch as a peer, from an environment that has it;'
	@echo '              LLAMA_CPP=/path/to/python: with llama.cpp)'
	@echo 'make lock     resolve the pinned requirements anew (UPGRADE=1: to the newest versions)'
	@echo 'make clean    remove .venv, .cache and what the tools leave'

setup:
	@scripts/setup
	@scripts/build-kernels
	@scripts/build-runner

demo: setup
	@$(BIN)/python -m scripts.demo

test: lint
	@scripts/check-kernels test
	@$(BIN)/python -m pytest $(PYTEST_FLAGS)

check-memory: setup
	@scripts/check-memory

lint: setup
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@scripts/check-kernels lint
	@scripts/check-bazel lint

format: setup
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@if cargo fmt --version >/dev/null 2>&1; then cargo fmt --all --manifest-path runner/Cargo.toml; fi
	@scripts/check-bazel format

bench: setup
	@set -e; for file in $$(grep -l __main__ benchmarks/*.py); do \
		name=$$(basename "$$file" .py); echo "== $$name"; \
		set --; \
		if [ "$$name" = decode ] && [ -n "$(TORCH)" ]; then set -- --torch "$(TORCH)"; fi; \
		if [ "$$name" = native_cpu ] && [ -n "$(LLAMA_CPP)" ]; then set -- --llama-cpp "$(LLAMA_CPP)"; fi; \
		$(BIN)/python -m "benchmarks.$$name" "$$@"; \
	done

lock: setup
	@$(COMPILE) pyproject.toml --group dev --output-file requirements.lock
	@$(COMPILE) --constraints requirements.lock --group train --output-file requirements-train.lock
	@$(COMPILE) --no-deps --group native --output-file requirements-native.lock
	@# Its declared dependencies are PyTorch and more, which nothing here needs.
	@$(COMPILE) --no-deps --group demo --output-file requirements-demo.lock

clean:
	rm -rf .venv .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	rm -rf namedtensor/_native runner/target
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
