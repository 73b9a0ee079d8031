# Two commands: `make demo` and `make test`. Everything they need is set up first, once.

VENV ?= .venv
JOBS ?= 2
export PYTHON

BIN := $(VENV)/bin
KEY := $(shell cat pyproject.toml constraints.txt .ci/setup | cksum | tr ' ' -)
SETUP := $(VENV)/.set-up-$(KEY)
DEV := $(VENV)/.dev-$(KEY)
LINKS := $(addprefix zeroskip/,boards compiler hw pruning)

.PHONY: help demo test dev lint clean
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up, then prune, compile, simulate and synthesize a small network (zeroskip demo)"
	@echo "make test    set up, then the whole test suite"
	@echo "make dev     set up, plus ruff, mypy, import-linter and the links that editors and mypy need"
	@echo "make lint    make dev, then style, types and import contracts"
	@echo "make clean   remove build/ and caches (the environment $(VENV) stays)"
	@echo "Variables: VENV=FOLDER (now $(VENV)), PYTHON=/path/to/python, JOBS=N (test processes, now $(JOBS)), ARGS=..."

$(SETUP):
	@.ci/setup "$(VENV)" test
	@rm -f "$(VENV)"/.set-up-* "$(VENV)"/.dev-*
	@touch "$@"

$(DEV):
	@.ci/setup "$(VENV)" test,dev
	@rm -f "$(VENV)"/.set-up-* "$(VENV)"/.dev-*
	@touch "$(SETUP)" "$@"

$(LINKS): zeroskip/%:
	@ln -s "../$*" "$@"

demo: $(SETUP)
	@"$(BIN)/zeroskip" demo $(ARGS)

test: $(SETUP)
	@"$(BIN)/python" -m pytest -n $(JOBS) $(ARGS)

dev: $(DEV) $(LINKS)
	@echo "ready: $(BIN)/zeroskip --help"

lint: $(DEV) $(LINKS)
	@"$(BIN)/ruff" check .
	@"$(BIN)/mypy" -p zeroskip
	@"$(BIN)/lint-imports"

clean:
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
