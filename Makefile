# `make` shows what there is. Settings are variables: `make run PORT=8080`.
.DEFAULT_GOAL := help
.PHONY: help run sam-local sam-invoke invoke status logs psql verify maintain restore alerts db-stop db-start \
  dead-letters redrive discard backfill stop reset token simulate test e2e hostile faults bench lint audit sbom format cost openapi \
  tables build lock

PORT ?= 3000
export PORT
PYTHON ?= python3
export PYTHON
ARCHITECTURE ?= arm64
export ARCHITECTURE
BIN := .venv/bin
# What the functions consist of, besides their own code.
SHIPPED := $(wildcard layers/*/requirements.txt functions/*/requirements.txt)
SAM = SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=$${AWS_DEFAULT_REGION:-eu-central-1} .venv-sam/bin/sam
export PYTHONDONTWRITEBYTECODE := 1
# uv trusts what the machine trusts, as pip and curl do.
export UV_SYSTEM_CERTS := 1

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-14s%s\n", $$1, $$2}'

run: .venv/run ## Start the whole system and serve it on localhost (PORT, DATABASE_URL, INGEST_MODE, AUTH=token)
	@$(BIN)/python -m local run

sam-local: .venv/run ## The same by `sam local start-api`, in containers: needs Docker
	@$(BIN)/python -m local run --sam

sam-invoke: .venv/run ## Invoke FUNCTION=… in a container, with EVENT=events/….json, on what `make sam-local` runs
	@$(BIN)/python -m local invoke --sam "$(FUNCTION)" "$(or $(EVENT),events/$(FUNCTION).json)"

invoke: .venv/run ## Ask a function directly: EVENT=events/analytics/fleet.json (FUNCTION=AnalyticsFunction)
	@$(BIN)/python -m local invoke $(or $(FUNCTION),AnalyticsFunction) \
		"$(or $(EVENT),events/analytics/performance.json)"

status: .venv/run ## Say what is running
	@$(BIN)/python -m local status

logs: .venv/run ## Show the log as it grows
	@$(BIN)/python -m local logs

psql: .venv/run ## A SQL prompt on the local database; SQL="..." for one statement
	@$(BIN)/python -m local psql $(if $(SQL),"$$SQL")
psql: export SQL := $(value SQL)

verify: .venv/run ## Compare live rows, rollups and links with history
	@$(BIN)/python -m local verify

maintain: .venv/run ## Partitions, summaries, archive (HISTORY_RETENTION=days), statistics: once, now
	@$(BIN)/python -m local maintain

restore: .venv/run ## Bring a day back from the archive, into tables of its own: DAY=2026-01-31
	@$(BIN)/python -m local restore "$(DAY)"

alerts: .venv/run ## Judge the chargers now, publish what has changed, and print it
	@$(BIN)/python -m local alerts

db-stop: .venv/run ## Stop the database alone: readings wait in the queues
	@$(BIN)/python -m local db-stop

db-start: .venv/run ## Start the database again: the queues drain
	@$(BIN)/python -m local db-start

dead-letters: .venv/run ## List the messages that cannot be stored, each with its reason
	@$(BIN)/python -m local dead-letters

redrive: .venv/run ## Send these messages back to their queues
	@$(BIN)/python -m local redrive

discard: .venv/run ## Delete one of these messages for good, and print it: ID=… as `make dead-letters` tells
	@$(BIN)/python -m local discard "$(ID)"

backfill: .venv/run ## Send months of readings from FILE=….csv or .parquet (URL=…, AGAIN=1); goes on where it stopped
	@$(BIN)/python -m local backfill "$(FILE)" $(if $(URL),--url "$(URL)") $(if $(AGAIN),--again)

stop: .venv/run ## Stop what `make run` started
	@$(BIN)/python -m local stop

reset: .venv/run ## Stop, and delete all local data
	@$(BIN)/python -m local reset

token: .venv/run ## Keys and tokens: ARGS="issue NAME --scope …", "revoke TOKEN", "key"; "--help"
	@$(BIN)/python -m local token $(ARGS)

simulate: .venv/simulate ## Send telemetry to the running system; ARGS="--help" for the options
	@$(BIN)/python -m local simulate $(ARGS)

test: .venv/dev ## Unit, integration and end-to-end tests on real PostgreSQL servers
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20 $(ARGS)

e2e: .venv/dev .venv/sam .venv/ministack ## Deploy template.yaml to MiniStack, without Docker, and use it
	@$(BIN)/python -m pytest -m emulator tests/e2e $(ARGS)

hostile: .venv/dev ## Send CASES=60000 requests that nobody should send, to the handlers on a real database
	@HOSTILE_CASES=$(or $(CASES),60000) $(BIN)/python -m pytest -n 3 --dist load \
		tests/integration/test_hostile_input.py $(ARGS)

faults: .venv/run ## Break the system in every way, and look for lost readings; ARGS=--short
	@$(BIN)/python -m faults $(ARGS)

bench: .venv/dev ## How near the store is to the limit; writes .local/bench.json; ONLY="drain burst": some parts
	@ONLY="$(ONLY)" $(BIN)/python -m bench $(ARGS)

lint: .venv/dev .venv/sam .venv/checkov ## Style, types, templates
	@echo "ruff"; $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "mypy"; $(BIN)/mypy
	@echo "cfn-lint"; $(BIN)/cfn-lint template.yaml infra/*.yaml
	@echo "sam validate"; $(SAM) validate --lint
	@echo "checkov"; .venv-checkov/bin/checkov

# What runs on AWS. --strict: a package that nobody could be asked about is a failure as well.
audit: .venv/audit ## Look for known vulnerabilities of the functions' packages: asks PyPI
	@.venv-audit/bin/pip-audit --strict --disable-pip $(addprefix -r ,$(SHIPPED))

sbom: .venv/audit ## Write what the functions ship, as CycloneDX, into .local/sbom.json
	@mkdir -p .local
	@sed "s/^dynamic.*/version = \"$$(PYTHONPATH=layers/telemetry/python $(BIN)/python -c \
		'import telemetry; print(telemetry.__version__)')\"/" pyproject.toml > .local/sbom.toml
	@cat $(SHIPPED) | PYTHONWARNINGS=ignore .venv-audit/bin/cyclonedx-py requirements - \
		--pyproject .local/sbom.toml --output-reproducible --output-file .local/sbom.json

format: .venv/dev ## Put the code into the project's style
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

cost: .venv/run ## What a fleet costs on AWS: DEVICES=20000 INTERVAL=60 BATCH=1; ARGS="--queue-first"
	@$(BIN)/python -m local cost $(if $(DEVICES),--devices $(DEVICES)) \
		$(if $(INTERVAL),--interval $(INTERVAL)) $(if $(BATCH),--batch $(BATCH)) $(ARGS)

openapi: .venv/run ## Write docs/openapi.json from the handlers
	@$(BIN)/python -m local openapi

tables: .venv/run ## Write docs/tables.md from the migrations
	@$(BIN)/python -m local tables

build: .venv/dev .venv/sam ## Build what `sam deploy` ships; ARCHITECTURE=x86_64 for other processors
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(SAM) build --parameter-overrides Architecture=$(ARCHITECTURE)

lock: .venv/dev ## Pin the newest allowed dependencies, with hashes
	@PATH="$(CURDIR)/$(BIN):$$PATH" local/lock.sh

OWN_PYTHON = $(BIN)/python
# MiniStack runs the functions on its own Python, so it has theirs.
.venv/ministack: OWN_PYTHON = $$(PATH="$(CURDIR)/$(BIN):$$PATH" layers/runtime_python.sh)

# Each environment is installed when it is first needed and when its pins have changed.
.venv/run: requirements/run.txt
	@local/install.sh requirements/run.txt $@
.venv/simulate: requirements/simulate.txt
	@local/install.sh requirements/simulate.txt $@
.venv/dev: requirements/dev.txt
	@local/install.sh requirements/dev.txt $@
# These have environments of their own, because they pin what others need newer.
.venv/sam .venv/checkov .venv/audit .venv/ministack: .venv/%: requirements/%.txt .venv/dev
	@echo "Installing the packages of $< into .venv-$*"
	@python=$(OWN_PYTHON) && $(BIN)/uv venv --quiet --clear --python "$$python" .venv-$*
	@$(BIN)/uv pip install --quiet --require-hashes -r $< --python .venv-$*/bin/python
	@touch $@
