# make run | test | bench | lint: each works on a fresh machine with Python 3.11, git, make and a C compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK := config/requirements-dev.lock
DEBIAN := chromium firefox-esr iproute2 nftables coturn
ARGS ?=
LOCKING := --quiet --strip-extras --generate-hashes --no-annotate --no-header \
  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.PHONY: run test test-stripe bench lint lock clean system

$(READY): $(LOCK) pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

run: $(READY)
	$(BIN)/gateway dev $(ARGS)

# Debian packages that the browser tests drive; installed when missing and allowed.
system:
	@missing=""; for p in $(DEBIAN); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing$$missing"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	  else echo "please install:$$missing"; fi; \
	fi

test: $(READY) system
	$(BIN)/python -m tests $(ARGS)

test-stripe: $(READY)
	STRIPE_API_KEY=$(STRIPE_API_KEY) $(BIN)/python -m pytest tests/stripe_contract $(ARGS)

# ONLY=relay measures one part; ARGS=--publish renews docs/bench.svg and docs/benchmarks.md.
bench: $(READY)
	$(BIN)/python -m loadtests $(foreach part,$(ONLY),--only $(part)) $(ARGS)

lint: $(READY)
	$(BIN)/ruff check gateway tests loadtests
	$(BIN)/ruff format --check gateway tests loadtests
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(READY)
	$(BIN)/pip-compile $(LOCKING) --extra dev --extra bucket -o config/requirements.lock pyproject.toml
	$(PYTHON) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); \
	  print("\n".join(["-r $(CURDIR)/config/requirements.lock", *(d for g in p["dependency-groups"].values() for d in g)]))' \
	| $(BIN)/pip-compile $(LOCKING) --allow-unsafe -o $(LOCK) -

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
