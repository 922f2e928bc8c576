# The front door. `make` lists what there is; everything is installed into .venv, nothing outside it is touched.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# The first that works: some version managers put names on the path that only say that the version is not chosen.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && command -v $$p && break; done)
LOCK := $(shell if ldd --version 2>&1 | grep -qi musl; then echo requirements-external.lock; else echo requirements.lock; fi)
STAMP := $(VENV)/.installed
# Tests run in as many processes as there are cores, and at least two.
TEST_PROCESSES ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 2 ] && echo $$n || echo 2)

.DEFAULT_GOAL := help
.PHONY: help run test check format gateway widget reference node chaos chaos-channels bench bench-scale bench-callbacks bench-door bench-streams bench-queue lock clean
# The QR gateway is built where Node is new enough; without it everything but real telephones by QR works.
GATEWAY := $(shell node -e 'process.exit(+(+process.versions.node.split(".")[0] < 20))' 2>/dev/null && command -v npm >/dev/null \
	&& echo gateway/node_modules/.built)
# The widget's script is in the repository; its source is checked where Node is as new as Vite wants it.
WIDGET := $(shell node -e 'const [a, b] = process.versions.node.split("."); process.exit(+(+a < 20 || (+a === 20 && +b < 19)))' 2>/dev/null \
	&& command -v npm >/dev/null && echo widget/node_modules/.installed)

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(STAMP) $(GATEWAY) ## start everything on this machine, with a demo customer and stand-ins (Ctrl-C stops)
	$(BIN)/replyline start --demo

test: $(STAMP) $(GATEWAY) $(WIDGET) ## run all tests, on servers of their own, in a real browser where there is one
	$(BIN)/pytest -n $(TEST_PROCESSES)
	$(if $(GATEWAY),npm test --silent --prefix gateway)
	$(if $(WIDGET),npm test --silent --prefix widget)

check: $(STAMP) $(GATEWAY) $(WIDGET) ## format, lint, types, import layers and tests: what must be green before a commit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(if $(WIDGET),npm run check --silent --prefix widget && npm test --silent --prefix widget)
	$(BIN)/pytest -n $(TEST_PROCESSES)
	$(if $(GATEWAY),npm test --silent --prefix gateway)

format: $(STAMP) ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

chaos: $(STAMP) ## kill, cut and wipe what the pipeline depends on, with hundreds of messages in flight, and count
	$(BIN)/pytest tests/chaos tests/interop --chaos-full -s

chaos-channels: $(STAMP) gateway ## bend both WhatsApp channels over 1,000 messages, and count what was lost, doubled or out of order
	$(BIN)/pytest tests/chaos_channels tests/whatsapp/test_fuzzed.py --chaos-full -s

bench: $(STAMP) node ## messages a second, CPU and latency from door to sent, beside the same in BullMQ for Node
	$(BIN)/python -m bench.pipeline

bench-scale: $(STAMP) ## what a message costs with a million waiting, ten million stored, four workers, after an hour (hours)
	$(BIN)/python -m bench.scale

bench-callbacks: $(STAMP) ## the door under Meta's callbacks: time to answer, and what an update costs
	$(BIN)/python -m bench.callbacks

bench-door: $(STAMP) ## what a message costs the API process on each route that takes one; BESIDE=folder of another checkout
	$(BIN)/python -m bench.door $(if $(BESIDE),--beside $(BESIDE))

bench-queue: $(STAMP) node ## the queue engine alone, beside BullMQ for Node and its Python package
	$(BIN)/python -m bench.queue

bench-streams: $(STAMP) ## a thousand open pages on one process: memory, latency, CPU, cuts and slow readers
	$(BIN)/python -m bench.streams

reference: $(STAMP) ## write docs/cli.md from the commands
	$(BIN)/python -m replyline.cli.reference > docs/cli.md

widget: widget/node_modules/.installed ## build the widget's script, replyline/web/static/widget.js, from widget/ (Node 20.19 or newer)
	npm run build --silent --prefix widget

widget/node_modules/.installed: widget/package-lock.json
	@npm ci --no-audit --no-fund --ignore-scripts --prefix widget && touch widget/node_modules/.installed

gateway: gateway/node_modules/.built ## build the WhatsApp QR gateway (Node 20 or newer)

gateway/node_modules/.built: gateway/package-lock.json $(wildcard gateway/src/*.ts gateway/test/*.ts)
	@npm ci --no-audit --no-fund --ignore-scripts --prefix gateway && npm run build --silent --prefix gateway \
		&& touch gateway/node_modules/.built || echo "The QR gateway could not be built; everything but telephones by QR works."

node: ## install what the comparisons with BullMQ for Node, NestJS and bull-board need (Node 20 or newer)
	npm ci --no-audit --no-fund --ignore-scripts --prefix tests/broker/conformance
	npm ci --no-audit --no-fund --ignore-scripts --prefix tests/interop
	npm ci --no-audit --no-fund --ignore-scripts --prefix bench/node-baseline

lock: $(STAMP) ## resolve pyproject.toml anew into the lock files; a new uv is named in requirements-uv.lock's first line
	head -n 1 requirements-uv.lock | cut -d ' ' -f 1 | $(BIN)/uv pip compile -q - --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header -o requirements-uv.lock
	$(BIN)/uv pip compile -q pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header -o requirements.lock
	$(BIN)/uv pip compile -q pyproject.toml --extra openai --extra s3 --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header -o requirements-external.lock

clean: ## remove the virtual environment and caches; data in .replyline stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(STAMP): pyproject.toml $(LOCK) requirements-uv.lock
	@[ -n "$(PYTHON)" ] && "$(PYTHON)" -c '$(NEW_ENOUGH)' \
		|| { echo "Replyline needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes $(LOCK)
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(STAMP)
