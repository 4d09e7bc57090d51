# Everything is kept in this folder: the environment in .venv, data in data/, Dagster's history in .dagster.
# `make` alone lists the targets.

PORT = 4010
UI_PORT = 3000
DASHBOARD_PORT = 4020
LATENCY = 2
KILLS =
FLEET_PARTITIONS =
PYTHON =
UPGRADE = --upgrade

VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.installed-demo
DEV := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
UV := $(BIN)/uv
# As pip does: the proxy of a company may have a certificate of its own.
export UV_SYSTEM_CERTS := 1
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --no-strip-extras --generate-hashes \
  --no-annotate --no-header

# A root belongs to one URL, so each port has its own root and its own emulator state.
ifeq ($(PORT),4010)
ROOT := data/emulated
STATE := data/emulator
else
ROOT := data/emulated/port-$(PORT)
STATE := data/emulator/port-$(PORT)
endif
EMULATOR_COMMAND := $(BIN)/batch-assets emulator --port $(PORT) --state $(STATE) --latency $(LATENCY)
DASHBOARD_COMMAND := $(BIN)/batch-assets dashboard --port $(DASHBOARD_PORT)
DAGSTER_COMMAND := $(BIN)/dagster dev --workspace workspace.yaml --port $(UI_PORT)
CREDENTIALS := $$ANTHROPIC_API_KEY$$ANTHROPIC_AUTH_TOKEN$$ANTHROPIC_PROFILE$$ANTHROPIC_IDENTITY_TOKEN$$ANTHROPIC_IDENTITY_TOKEN_FILE$$ANTHROPIC_BASE_URL

.PHONY: help demo dev test test-lowest test-newest lint docs format bench bench-large fleet chaos chaos-budget diagrams screenshots lock dist clean
.DELETE_ON_ERROR:

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 18

define SHOW_RESULTS
import sys
import pandas as pd
for name, columns in {
    "review_triage": ["review_id", "sentiment", "topics", "urgency", "needs_reply", "summary_en"],
    "ticket_replies": ["ticket_id", "subject", "tier", "result_type", "response_text"],
}.items():
    path = f"{sys.argv[1]}/{name}/results"
    print(f'pd.read_parquet("{path}")[{columns}].head()')
    print(pd.read_parquet(path, columns=columns).head().to_string(index=False, max_colwidth=34), end="\n\n")
print("Next: .venv/bin/batch-assets dashboard shows all of this in the browser.")
print("      make dev starts Dagster's UI and the dashboard on the same data.")
endef

demo: export SCRIPT = $(SHOW_RESULTS)
demo: $(DEMO) ## Run both demo pipelines against the emulator: no account, no key; PORT=4010
	@unset BATCH_ASSETS_EMULATOR BATCH_ASSETS_LEDGER; export BATCH_ASSETS_ROOT=$(ROOT); \
	$(EMULATOR_COMMAND) -- sh -c ' \
	  set -e; for name in review_triage ticket_replies; do $(BIN)/batch-assets run $$name; echo; done'
	@$(BIN)/python -c "$$SCRIPT" $(ROOT)

# A shell in the background ignores Ctrl-C, so the dashboard is ended when the UI has ended.
dev: $(DEMO) ## Start UI, daemon and dashboard; uses the real API if ANTHROPIC_API_KEY is set and EMULATOR=1 is not
	@mkdir -p .dagster; [ -e .dagster/dagster.yaml ] || cp dagster.yaml .dagster/
	@export DAGSTER_HOME="$(CURDIR)/.dagster" PYTHONWARNINGS='ignore:Function `dev_command` is superseded'; \
	echo "UI:        http://127.0.0.1:$(UI_PORT)  (ready in about half a minute; Ctrl-C stops everything)"; \
	echo "Dashboard: http://127.0.0.1:$(DASHBOARD_PORT)  (UI_PORT=… and DASHBOARD_PORT=… choose other ports)"; \
	command="$(DAGSTER_COMMAND)"; emulator="$$BATCH_ASSETS_EMULATOR"; \
	if [ -n "$$BATCH_ASSETS_EMULATOR" ]; then \
	  echo "API: EMULATOR at $$BATCH_ASSETS_EMULATOR, because BATCH_ASSETS_EMULATOR is set"; \
	elif [ -n "$(EMULATOR)" ] || [ -z "$(CREDENTIALS)" ]; then \
	  echo "API: EMULATOR, started by this command on port $(PORT): answers are made up and cost nothing"; \
	  echo "     (for the real API, set ANTHROPIC_API_KEY; data of the two never mix)"; \
	  [ $(PORT) = 4010 ] || export BATCH_ASSETS_ROOT="$${BATCH_ASSETS_ROOT:-$(CURDIR)/$(ROOT)}"; \
	  command="$(EMULATOR_COMMAND) -- $(DAGSTER_COMMAND)"; emulator=http://127.0.0.1:$(PORT); \
	else \
	  echo "API: the REAL one; batches cost money (EMULATOR=1 uses the emulator instead)"; \
	fi; \
	BATCH_ASSETS_EMULATOR="$$emulator" $(DASHBOARD_COMMAND) >/dev/null & \
	trap "kill $$! 2>/dev/null" EXIT INT TERM; \
	$$command

test: lint docs ## Check everything that `make lint` and `make docs` check, and run all tests
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# The tests that use the dependencies most. They are found by name, in any folder under tests/.
DEPENDENCY_TESTS := test_template test_params_check test_output test_dataset_files test_csv test_jsonl_parquet \
  test_table_rows test_object_stores test_ledger test_migrations test_query test_query_mariadb test_results \
  test_sdk test_sink test_sink_mariadb test_stages test_component test_pools
test_files = $(foreach name,$(DEPENDENCY_TESTS),$(or \
  $(shell find tests -name $(name).py),$(error DEPENDENCY_TESTS: tests/ has no $(name).py)))

# Arguments: name of the environment, version of Python, options of `uv pip install`.
define TEST_DEPENDENCIES
@python=$$(for python in python$(2) $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$(2).*/bin/python; do \
  $$python -c 'import sys; print(sys.executable)' 2>/dev/null && break; done) || { \
  echo "SKIPPED: make $@ needs Python $(2), and there is neither a python$(2) on the PATH nor one of pyenv."; exit 0; }; \
echo "Installing into $(VENV)/$(1) with $$($$python --version): $(3)"; \
$(UV) venv --quiet --clear --python $$python $(VENV)/$(1) && \
$(UV) pip install --quiet --python $(VENV)/$(1)/bin/python $(3) -e '.[test]' && \
$(UV) pip list --quiet --python $(VENV)/$(1)/bin/python --format freeze | paste -sd ' ' | fold -sw 115 && \
set -x && $(VENV)/$(1)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(test_files)
endef

test-lowest: $(DEV) ## Test with the oldest versions that pyproject.toml allows, on Python 3.11
	$(call TEST_DEPENDENCIES,lowest,3.11,--resolution lowest-direct)

test-newest: $(DEV) ## Test with the newest available versions, on Python 3.13
	$(call TEST_DEPENDENCIES,newest,3.13,--upgrade)

lint: $(DEV) ## Check format, lint, words, imports between wings, types and dependencies; change nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/codespell
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy
	$(BIN)/deptry --no-ansi batch_assets

# The variable silences an advertisement by the theme. With --quiet, --strict would not see warnings.
docs: $(DEV) ## Build the documentation site into site/; a broken link or docstring is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(DEV) ## Format the code, and fix what the linter can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(DEV) ## Measure time and memory, compared with plain scripts
	$(BIN)/python -m benchmarks --million
	$(BIN)/python -m benchmarks.structured
	$(BIN)/python -m benchmarks.templates
	$(BIN)/python -m benchmarks.loading
	$(BIN)/python -m benchmarks.commands
	$(BIN)/python -m benchmarks.ended
	$(BIN)/python -m benchmarks.beside
	$(BIN)/python -m benchmarks.history
	$(BIN)/python -m benchmarks.long_ledger
	$(BIN)/python -m benchmarks.changes
	$(BIN)/python -m benchmarks.dashboard

bench-large: $(DEV) ## Measure the largest sizes: hours, and 35 GB of disk; what was done is not done again
	$(BIN)/python -m benchmarks.large

fleet: $(DEV) ## Compare one worker with two, and kill everything, as root; FLEET_PARTITIONS=20
	$(BIN)/python -m benchmarks.fleet $(if $(FLEET_PARTITIONS),--partitions $(FLEET_PARTITIONS))

chaos: $(DEV) ## Kill processes and corrupt calls for 10 minutes, and count what was lost; KILLS=1000
	$(BIN)/python -m tests.chaos $(if $(KILLS),--kills $(KILLS))

chaos-budget: $(DEV) ## Kill eight processes that share budgets at many positions, and compare the bill; TRIALS=20
	BATCH_ASSETS_BUDGET_TRIALS=$(or $(TRIALS),20) $(BIN)/python -m pytest -q tests/core/test_budget_processes.py

diagrams: $(DEV) ## Draw the diagrams of states in docs/durability.md from the code
	$(BIN)/python -m tests.state_diagrams

screenshots: $(DEV) ## Take the pictures in docs/images again, with Chromium
	$(BIN)/python -m tests.screenshots

# All files have the same versions: dev.txt constrains the other three.
lock: $(DEV) ## Write requirements/*.txt with the newest versions; UPGRADE= keeps locked ones where possible
	$(COMPILE) $(UPGRADE) --all-extras --output-file requirements/dev.txt pyproject.toml
	$(COMPILE) $(UPGRADE) --constraints requirements/dev.txt --extra dashboard --extra demo \
	  --output-file requirements/demo.txt pyproject.toml
	$(COMPILE) $(UPGRADE) --constraints requirements/dev.txt --extra aws --extra azure --extra celery --extra duckdb \
	  --extra gcs --extra google-cloud --extra k8s --extra mysql --extra postgres --extra s3 --extra slack \
	  --output-file requirements/runtime.txt pyproject.toml
	$(BIN)/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' | \
	$(COMPILE) $(UPGRADE) --constraints requirements/dev.txt --output-file requirements/build.txt -

dist: $(DEV) ## Build sdist and wheel into dist/, and check them as the package index does
	rm -rf dist
	$(UV) build --no-build-isolation --python $(BIN)/python
	$(BIN)/twine check --strict dist/*

clean: ## Remove the environment; keep data and history
	rm -rf $(VENV)

# pip refuses an editable install if hashes are required, so the package itself is installed second.
define INSTALL
@$(PIP) install --require-hashes -r requirements/build.txt -r requirements/$(1).txt
@$(PIP) install --no-deps --no-build-isolation -e .
endef

$(DEMO): pyproject.toml requirements/build.txt requirements/demo.txt | $(BIN)/python
	@echo "Installing into $(VENV) (a minute or two the first time)"
	$(call INSTALL,demo)
	@touch $@

$(DEV): pyproject.toml requirements/build.txt requirements/dev.txt requirements/demo.txt | $(BIN)/python
	@echo "Installing into $(VENV), with development tools (a minute or two the first time)"
	$(call INSTALL,dev)
	@touch $(DEMO) $@

$(BIN)/python:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  echo "Making $(VENV) with $$($$python --version)"; \
	  $$python -m venv --clear $(VENV) && exit 0; \
	  echo "$$python cannot make an environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	done; \
	echo "No usable Python 3.11 or newer found. Install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
	exit 1
