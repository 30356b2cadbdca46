# Everything a developer types. `make` alone prints the list.
# Needs make and Python 3.11 or newer; all else is installed into .venv from requirements.lock.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NEWMAN := scripts/postman/newman
IN_STACK := $(BIN)/python -m scripts.stack exec --
LOCK_COMMAND := $(BIN)/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --python-version 3.11 \
	--custom-compile-command "make lock" --quiet --output-file requirements.lock

# The pythons worth trying, in the order of how much they have been tried; `make PYTHON=/path/to/python` chooses one.
PYTHONS := python3.11 python3.12 python3.13 python3 python
PYTHON ?= $(shell for python in $(PYTHONS); do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)

# Compose needs an engine that answers, not just the program.
HAS_DOCKER = docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##### Running

.PHONY: run
run: install ## Run the whole stack in the foreground (MongoDB, Redis, API, worker, demo users); Ctrl-C stops it
	@exec $(BIN)/python -m scripts.stack run

.PHONY: up
up: ## Run the stack in the background: with Docker Compose where an engine answers, else the embedded one
	@if $(HAS_DOCKER); then \
		echo "A Docker engine answers: starting with Docker Compose"; \
		$(MAKE) .env && docker compose up --build --detach --wait && \
		echo "The API answers at http://$$(docker compose port api 8000), its docs at /docs; users are in CREDENTIALS.md"; \
	else \
		echo "No Docker engine answers: starting the embedded stack"; \
		$(MAKE) install && $(BIN)/python -m scripts.stack up; \
	fi

.PHONY: down
down: ## Stop what `make up` started (or `make run`, from another terminal); the data stay
	@if $(HAS_DOCKER) && [ -n "$$(docker compose ps --quiet 2>/dev/null)" ]; then \
		echo "Stopping Docker Compose"; docker compose down; \
	else \
		echo "Stopping the embedded stack"; $(MAKE) install && $(BIN)/python -m scripts.stack down; \
	fi

.PHONY: logs
logs: ## Follow the logs of the running stack
	@if $(HAS_DOCKER) && [ -n "$$(docker compose ps --quiet 2>/dev/null)" ]; then \
		echo "Logs of Docker Compose"; docker compose logs --follow --tail 100 api worker; \
	else \
		echo "Logs of the embedded stack"; $(MAKE) install && exec $(BIN)/python -m scripts.stack logs; \
	fi

.PHONY: dashboard
dashboard: install ## Queues, rates, ledger, bank and workers of the running stack, live; ARGS="--once" for one page
	@if $(HAS_DOCKER) && [ -n "$$(docker compose ps --quiet 2>/dev/null)" ]; then \
		docker compose exec $$([ -t 1 ] || echo -T) api python -m scripts.dashboard $(ARGS); \
	else \
		exec $(IN_STACK) $(BIN)/python -m scripts.dashboard $(ARGS); \
	fi

##### The running stack

.PHONY: migrate
migrate: install ## Set the database up: collections, indexes, validators, roles (`make run` does it too)
	@$(IN_STACK) $(BIN)/python -m scripts.migrate

.PHONY: seed
seed: install ## Create the demo users (repeat-safe); ARGS="--users 1000 --balance 100000" for a load test
	@$(IN_STACK) $(BIN)/python -m seed $(ARGS)

.PHONY: admin
admin: install ## Make the first admins, twice for four eyes, in production too: EMAIL=asha@example.com; ARGS="--help"
	@if $(HAS_DOCKER) && [ -n "$$(docker compose ps --quiet 2>/dev/null)" ]; then \
		docker compose exec $$([ -t 1 ] || echo -T) api python -m scripts.admin $(ARGS) "$(EMAIL)"; \
	else \
		exec $(IN_STACK) $(BIN)/python -m scripts.admin $(ARGS) "$(EMAIL)"; \
	fi

.PHONY: check-ledger
check-ledger: install ## Prove the books: every wallet, entry, operation and the bank's journal
	@$(IN_STACK) $(BIN)/python -m scripts.check_ledger $(ARGS)

.PHONY: correct-positions
correct-positions: install ## Correct what accounts of the house can still give, where check-ledger found it wrong: ARGS='--reason "…" --by "…"'
	@$(IN_STACK) $(BIN)/python -m scripts.correct_positions $(ARGS)

.PHONY: correct-sums
correct-sums: install ## Correct stored sums that check-ledger found wrong: ARGS='--reason "…" --by "…"'
	@$(IN_STACK) $(BIN)/python -m scripts.correct_sums $(ARGS)

.PHONY: bank
bank: install ## The simulated bank: ARGS="status", ARGS="down --for 60", ARGS="up", ARGS="clock +3d"
	@$(IN_STACK) $(BIN)/python -m scripts.bank $(or $(ARGS),status)

.PHONY: reconcile
reconcile: install ## Compare days with the bank: ARGS="--day 2026-11-20", "--from … --to …"; "--replay" replays every wallet
	@$(IN_STACK) $(BIN)/python -m scripts.reconcile $(ARGS)

.PHONY: checkpoint
checkpoint: install ## Seal and sign all wallets' heads now; the worker does it every hour
	@$(IN_STACK) $(BIN)/python -m scripts.checkpoint $(ARGS)

.PHONY: verify-proof
verify-proof: install ## Check a proof offline: ARGS="wallet --key keys.json proof.json"; ARGS="--help" tells more
	@$(BIN)/python -m scripts.verify_proof $(ARGS)

.PHONY: rotate-keys
rotate-keys: install ## Seal what is kept encrypted under the current key; ARGS="--check" or ARGS="--dry-run"
	@$(IN_STACK) $(BIN)/python -m scripts.rotate_keys $(ARGS)

.PHONY: shell
shell: install ## A Python with await, and the stack's settings in its environment
	@$(IN_STACK) $(BIN)/python -m asyncio

.PHONY: bench
bench: install ## Measure throughput against the plain design; ARGS="--help" tells more
	@$(BIN)/python -m scripts.bench $(ARGS)

.PHONY: postman
postman: install $(NEWMAN)/node_modules/.package-lock.json ## Run the Postman collection with Newman (needs Node.js); BASE_URL=... where it is not the stack here
	@$(BIN)/python -m scripts.postman.run $(ARGS)

##### Checking

# Each process of the tests has servers of its own. In the order of their names: files of few and long tests would else
# come last, and one process wait for the other.
TEST_PROCESSES ?= 2

.PHONY: test
test: install ## Run every test, on a real MongoDB and Redis; ARGS="-k name" for some
	@$(BIN)/python -m pytest $(or $(ARGS),--numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder)

.PHONY: test-nightly
test-nightly: install ## 2,000 sequences of the ledger's state machine from a new seed, every fault of a cluster, a soak (45 min)
	@status=0; export TEST_NIGHTLY=1; \
	$(BIN)/python -m pytest tests/invariants/test_state_machine.py -k comes_to $(ARGS) || status=$$?; \
	$(BIN)/python -m pytest tests/cluster --capture=no $(ARGS) || status=$$?; \
	exit $$status

.PHONY: soak
soak: install ## Ten minutes of load on a busy machine, without a traceback; MINUTES=2, NEIGHBOURS=0, RATE=10 for other measures
	@TEST_NIGHTLY=1 TEST_SOAK_MINUTES=$(or $(MINUTES),10) TEST_SOAK_NEIGHBOURS=$(or $(NEIGHBOURS),2) TEST_SOAK_RATE=$(or $(RATE),30) \
		$(BIN)/python -m pytest tests/cluster/test_soak.py --capture=no $(ARGS)

.PHONY: test-mutants
test-mutants: install ## Break each line of the rules and see a test notice (1 h or more); ARGS="--sample 400", ARGS="--help"
	@$(BIN)/python -m scripts.mutants $(ARGS)

.PHONY: fuzz
fuzz: install ## Fuzz the whole API with schemathesis on a stack of its own; ARGS="--seed 7 --cases 50", ARGS="--help"
	@$(BIN)/python -m scripts.fuzz $(ARGS)

.PHONY: openapi
openapi: install ## Write docs/openapi.json anew from the routes; `make check` fails where it differs
	@$(BIN)/python -m scripts.export_openapi

.PHONY: lint
lint: install ## Fix and format what ruff can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: check
check: install ## What has to be clean before a commit: ruff, mypy, import-linter, OpenAPI, hadolint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m scripts.export_openapi --check
	@$(BIN)/hadolint Dockerfile && echo "hadolint: Dockerfile is clean"
	@$(BIN)/python -m scripts.postman.export --check && echo "docs: the Postman collection is up to date"

.PHONY: audit
audit: install ## Look for secrets and known holes, write an inventory (sbom.cdx.json); ARGS="--offline", "--accept", "--strict"
	@$(BIN)/python -m scripts.audit $(ARGS)

.PHONY: export-postman
export-postman: install ## Write docs/wallet.postman_collection.json and its environment anew
	@$(BIN)/python -m scripts.postman.export

##### Installing

.PHONY: install
install: $(STAMP) ## Install what is missing into .venv, exactly as locked
	@:

.PHONY: build
build: ## Build the Docker image; without an engine, install into .venv
	@if $(HAS_DOCKER); then \
		$(MAKE) .env && docker compose build; \
	else \
		echo "No Docker engine answers, so there is no image to build: installing into $(VENV) instead"; \
		$(MAKE) install; \
	fi

.PHONY: lock
lock: $(BIN)/uv ## Bring requirements.lock up to date with pyproject.toml; ARGS="--upgrade" for newer versions
	@$(LOCK_COMMAND) $(ARGS)

.PHONY: clean
clean: ## Remove .venv, Newman and the tools' caches; the stack's data stay
	rm -rf $(VENV) $(NEWMAN)/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache mutants htmlcov .coverage

# A quick second start: nothing is done until the lock changes.
$(STAMP): requirements.lock $(BIN)/uv
	@echo "Installing into $(VENV)"
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@touch $@

# uv itself comes at its locked version and hash, by the pip that every Python has; where Debian left pip out of venv,
# by the pip of the system.
$(BIN)/uv:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer is needed and was not found (tried: $(PYTHONS))." \
		"Install it, or say where it is: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version 2>&1)"
	@rm -rf $(VENV)
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
		elif $(PYTHON) -m pip --version >/dev/null 2>&1; then $(PYTHON) -m venv --without-pip $(VENV); \
		else echo "This Python has no pip. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; fi
	@awk '/^uv==/ { on = 1; print; next } /^[^ ]/ { on = 0 } on' requirements.lock > $(VENV)/uv.lock
	@if [ -x $(BIN)/pip ]; then pip="$(BIN)/python -m pip"; else pip="$(PYTHON) -m pip --python $(BIN)/python"; fi; \
		$$pip install --quiet --disable-pip-version-check --require-hashes --requirement $(VENV)/uv.lock
	@[ -x $@ ]

# npm writes this file when all is installed. The lock has hashes and no addresses: any registry may serve it.
$(NEWMAN)/node_modules/.package-lock.json: $(NEWMAN)/package.json $(NEWMAN)/package-lock.json
	@command -v npm >/dev/null || { echo "Newman needs Node.js 16 or newer with npm, and there is no npm here." \
		"Install it (https://nodejs.org; on Debian and Ubuntu: apt install nodejs npm), then: make postman" >&2; exit 1; }
	@echo "Installing Newman into $(NEWMAN)/node_modules"
	@cd $(NEWMAN) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

.env:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer is needed to make .env; or copy .env.example by hand" >&2; exit 1; }
	@$(PYTHON) -m scripts.new_env
