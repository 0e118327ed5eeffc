# The commands of this project. Everything lives in .venv; `make setup` makes it.
VENV ?= .venv
PY := $(VENV)/bin/python
ARGS ?=

.PHONY: setup demo test test-slow test-soak bench lint lock clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements-dev.lock pyproject.toml image/setup.sh
	sh image/setup.sh $(VENV)
	touch $@

demo: setup
	$(VENV)/bin/wattseal demo $(ARGS)

# Linters, types and tests in parallel; then the ones that measure, by themselves.
test: setup
	$(PY) -m pytest -n 4 -m "not slow and not alone and not soak" $(ARGS)
	$(PY) -m pytest -m "alone and not slow and not soak" $(ARGS)

test-slow: setup
	$(PY) -m pytest -n 2 -m "slow and not alone" $(ARGS)
	$(PY) -m pytest -m "slow and alone" $(ARGS)

test-soak: setup
	$(PY) -m pytest -m soak $(ARGS)

bench: setup
	$(PY) -m hil.bench $(ARGS)

lint: setup
	$(PY) -m pytest -m "not slow" tests/test_lint.py

# Lock the dependencies again, with hashes and without any address; needs `pip install uv`.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate --all-extras pyproject.toml -o requirements-dev.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate -c requirements-dev.lock --extra tpm pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info demo-out bench-out .mypy_cache .ruff_cache .hypothesis
