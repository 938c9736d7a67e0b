# Everything here needs only Python 3.10+, with network access the first time: demo/environment.py sets up the rest.
PYTHON ?= python3
ENVIRONMENT := $(PYTHON) demo/environment.py
RUN := $(ENVIRONMENT) run

.PHONY: help environment demo test lint unit bench clean

help:
	@echo "make demo    a film with memory from the real ComfyUI, on the CPU"
	@echo "make test    lint, then unit and integration tests (real ComfyUI)"
	@echo "make unit    unit tests only"
	@echo "make lint    ruff and pyright"
	@echo "make bench   step time with and without memory"

environment:
	@$(ENVIRONMENT)

demo: environment
	$(RUN) -m demo.run_demo

lint: environment
	$(RUN) -m ruff check .
	$(RUN) -m pyright

unit: environment
	$(RUN) -m pytest tests/unit

# One pytest run, so that its closing line counts all tests.
test: lint
	VIDEO_MEMORY_REQUIRE_COMFY=1 $(RUN) -m pytest

bench: environment
	$(RUN) -m benchmarks.step_time

clean:
	rm -rf .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
