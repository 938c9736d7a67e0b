# Everything here needs only Python 3.10+, with network access the first time: tools/environment.py sets up the rest.
PYTHON ?= python3
ENVIRONMENT := $(PYTHON) tools/environment.py
RUN := $(ENVIRONMENT) run
# Processes that share the tests; a module's tests stay in one, which keeps its server.
WORKERS ?= 2

.PHONY: help environment tools demo test lint unit bench real-size reproduce workflows screenshots clean

help:
	@echo "make demo    a film with memory from the real ComfyUI, on the CPU"
	@echo "make test    lint, then unit, integration and card tests (real ComfyUI, real browser)"
	@echo "make unit    unit tests only"
	@echo "make lint    ruff and pyright"
	@echo "make bench   step time with and without memory"
	@echo "make real-size  VRAM of every phase of a film at full size, on a card that is not there"
	@echo "make reproduce  the paper's tables in small; ARGS=--quick to try it, ARGS=--full with a GPU"
	@echo "make workflows  write workflows/ and locales/ anew, after a node has changed"
	@echo "make screenshots  every view in every state, to look at; OUT=folder"

environment:
	@$(ENVIRONMENT)

# A browser and comfy-cli; tests that lack one of them are skipped, unless VIDEO_MEMORY_REQUIRE_BROWSER=1.
tools: environment
	@$(RUN) -m tools.browser
	@-$(RUN) -m tools.comfy_cli

demo: environment
	$(RUN) -m demo.run_demo

lint: environment
	$(RUN) -m ruff check .
	$(RUN) -m pyright

unit: environment
	$(RUN) -m pytest tests/unit

# One pytest run, so that its closing line counts all tests.
test: lint tools
	VIDEO_MEMORY_REQUIRE_COMFY=1 $(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

workflows: tools
	$(RUN) -m tools.translations
	$(RUN) -m tools.workflows

# Both renderers, both themes, a large screen and a laptop; ARGS="--only sampler" for some.
OUT ?= /tmp/video-memory-screenshots
screenshots: tools
	$(RUN) -m tools.browser_server node tools/screenshots.mjs $(OUT) $(ARGS)

bench: environment
	$(RUN) -m benchmarks.step_time

# Goes on where it was stopped; ARGS=--report writes the tables of what is there.
real-size: environment
	$(RUN) -m benchmarks.real_size $(ARGS)

# Goes on where it was stopped; clips: CLIPS=folder with a manifest.json beside it.
reproduce: environment
	$(RUN) -m benchmarks.reproduce $(if $(CLIPS),--clips $(CLIPS)) $(ARGS)

clean:
	rm -rf .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
