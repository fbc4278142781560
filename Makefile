# The two commands of the README: `make simulate` and `make test`. Both set up .venv on first use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
# Tests start many processes of ours: compiled once, not in each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: simulate test test-full test-ci test-soak check format bench-smoke setup clean
simulate: setup
	@$(BIN)/fedcart simulate

setup: $(STAMP)
$(STAMP): pyproject.toml constraints.txt
	@echo "fedcart: setting up $(VENV) (once, a few minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed\nhint: make PYTHON=/path/to/python3.11 $@")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

test: setup
	@$(BIN)/pytest -n 3 --dist loadfile

test-full: setup
	@$(BIN)/pytest -n 2 --dist loadfile -m "not soak and not ci and not browser"

test-ci: setup
	@$(BIN)/pytest -m 'ci'

test-soak: setup
	@$(BIN)/pytest -m 'soak'

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench-smoke: setup
	@$(BIN)/python -m benchmarks --smoke

clean:
	rm -rf $(VENV) build *.egg-info
