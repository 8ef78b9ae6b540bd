# Verbs only; the programs are in scripts/. `make` lists them.
.DEFAULT_GOAL := help
BIN := .venv/bin

# Tests of core and agent: by these alone their coverage is counted, which doubles what core's arithmetic costs;
# a trainer's test lives through days of it.
OWN := tests/core tests/agent tests/contract

# Files with tests that run alone (tests/conftest.py holds that it is all of them): to collect the others only
# takes time.
ALONE = $(sort $(shell grep -rl --include='test_*.py' 'mark\.alone' tests))

# pip compiles nothing (scripts/bootstrap.py): what is imported is compiled then, once, so Python must be let.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test check fix bench loop docs rules starter lock clean env-run env-dev parts ready \
    install-systemd uninstall-systemd install-systemd-trainer uninstall-systemd-trainer

help:          ## list the verbs
	@sed -n 's/^\([a-z-]*\): .*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 34

run: env-run   ## score this host: starter bundle, then one trained here, hot reloaded (RUN_SECONDS=30 ends it)
	@$(BIN)/python scripts/run.py

test: ready    ## every test incl. end to end, coverage of core and agent enforced
	$(BIN)/pytest -q -n auto --maxprocesses=4 -m "not alone" --cov --cov-report=term $(OWN) $(PYTEST_ARGS)
	$(BIN)/pytest -q -n auto --maxprocesses=4 -m "not alone" $(OWN:%=--ignore=%) $(PYTEST_ARGS)
	$(BIN)/pytest -q -m alone $(ALONE) $(PYTEST_ARGS)

check: env-dev ## lint, types, import contracts, unit tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy scripts dashboards bench tests/rig.py tests/conftest.py
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n auto --maxprocesses=4 -m "not e2e and not alone" $(PYTEST_ARGS)
	$(BIN)/pytest -q -m "alone and not e2e" $(ALONE) $(PYTEST_ARGS)

fix: env-dev   ## what ruff can repair by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: ready   ## the figures of bench/results/
	$(BIN)/python bench/forest.py
	$(BIN)/python bench/lstm.py
	$(BIN)/python bench/footprint.py
	$(BIN)/python bench/collectors.py
	$(BIN)/python bench/history.py
	$(BIN)/python bench/agreement.py
	$(BIN)/python bench/fleet.py
	$(BIN)/python bench/mutations.py --count 5000
	$(BIN)/python bench/reloads.py --count 1000
	$(BIN)/python bench/determinism.py

loop: ready    ## the whole with real parts: history, training, a fault, its alert's message, its end
	$(BIN)/python bench/loop.py --hurried

docs: env-dev  ## docs/metrics.md, docs/features.md, the man page and completions from the code
	@$(BIN)/python scripts/docs.py

rules: env-dev ## rules, PrometheusRule, dashboards and Helm chart from rules/settings.yml and daemonset/
	@$(BIN)/python scripts/rules.py
	@$(BIN)/python scripts/kubernetes_rules.py
	@$(BIN)/python -m dashboards.build
	@$(BIN)/python scripts/helm_chart.py

starter: env-run ## train the starter bundle that ships in the wheel
	$(BIN)/python -m node_anomaly_trainer.starter

lock: env-dev  ## resolve and hash requirements/*.txt again
	scripts/lock.sh

clean:         ## everything make has made, the environment included
	rm -rf .venv .run .parts dist build .coverage .coverage.* htmlcov .hypothesis
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find agent core trainer tests bench scripts -name __pycache__ -prune -exec rm -rf {} +

install-systemd: ## the agent as a service of this host (docs/install-systemd.md); again is an upgrade
	@scripts/install_systemd.sh install agent

uninstall-systemd: ## take it away; settings and state stay
	@scripts/install_systemd.sh uninstall agent

install-systemd-trainer: ## the trainer and its weekly timer
	@scripts/install_systemd.sh install trainer

uninstall-systemd-trainer: ## take them away; settings and published bundles stay
	@scripts/install_systemd.sh uninstall trainer

env-run:
	@scripts/with-python.sh scripts/bootstrap.py run

env-dev:
	@scripts/with-python.sh scripts/bootstrap.py dev

parts:
	@scripts/with-python.sh scripts/real_parts.py

ready:         # both at once: each keeps one core busy, or waits for the network
	@$(MAKE) --no-print-directory --jobs=2 env-dev parts
