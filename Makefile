# `make help` explains every target. Needs git, make and Python 3.11 or newer; everything else goes into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DVC    := $(BIN)/dvc
ACTIVE := PATH="$$PWD/$(BIN):$$PATH" PYTHONPATH="$$PWD"   # stages are started by DVC as `python -m stages.NAME`
# One run at a time in a checkout; `make flow` holds the same lock.
IN_TURN = mkdir -p .attune && { flock --nonblock .attune/pipeline.lock true || \
	echo "another run is at work in this checkout: waiting for it to end"; } && $(ACTIVE) flock .attune/pipeline.lock

# Stages run through DVC; outs that one which was killed has taken away are put back (a stage that fails does so itself).
REPRO = sh -c 'python -m flows.prepare && { dvc --wait-for-lock repro "$$@" || \
	{ code=$$?; python -m flows.prepare --outs; exit $$code; }; }' repro

# These end a path in PATH or in a database's address, or are a variable for MLflow.
ifneq (,$(strip $(foreach mark,: % ?,$(findstring $(mark),$(CURDIR)))))
$(error nothing can run in a folder with :, % or ? in its path ($(CURDIR)): rename that folder, or move the checkout to another)
endif

-include .services/env.mk   # PREFECT_API_URL and MLFLOW_TRACKING_URI while `make services` is on, unless they are set

.DEFAULT_GOAL := help
.PHONY: run check plan flow tune crossvalidate recipes summary compare-data review lineage champion ui serve predict register rollback publish deploy services stop install lint test format hooks schema lock clean help

##@ Run

run: install ## Run what has to run of the eight stages, then show the results
	@started=$$(date +%s); $(IN_TURN) $(REPRO) && ATTUNE_STARTED=$$started $(ACTIVE) python -m flows.summary

check: install ## Check params.yaml without running anything
	@$(ACTIVE) python -m stages.common.params && echo "params.yaml is in order"

plan: install ## Say what a run would do and why (ARGS='--set finetune.learning_rate=1e-4', --force, --refresh, stages)
	@$(ACTIVE) python -m flows.plan $(ARGS)

flow: install ## The same pipeline as a Prefect flow, with retries and timeouts (ARGS as for plan)
	@started=$$(date +%s); $(ACTIVE) python -m flows.pipeline $(ARGS) && ATTUNE_STARTED=$$started $(ACTIVE) python -m flows.summary

tune: install ## Search for better params of finetune (tune in params.yaml; ARGS=--apply writes the best there)
	@$(IN_TURN) $(REPRO) tokenize && $(ACTIVE) python -m flows.tune $(ARGS)

crossvalidate: install ## Train once per fold (clean.split.folds); ARGS=--final sets params to learn from all these rows
	@$(IN_TURN) $(REPRO) tokenize && $(ACTIVE) python -m flows.crossvalidate $(ARGS)

recipes: install ## Run recipes, each in a clone below .attune/recipes, and show their scores (NAMES='stsb ratings'; minutes each)
	@set -e; for name in $(or $(NAMES),stsb ratings questions $(if $(wildcard data/inbox/tags.jsonl),tags)); do \
		folder=.attune/recipes/$$name; test -d $$folder || git clone --quiet --no-checkout . $$folder; \
		git -C $$folder fetch --quiet origin HEAD; git -C $$folder checkout --quiet --force FETCH_HEAD; \
		mkdir -p .attune/downloads $$folder/.attune; ln -sfn "$$PWD/$(VENV)" $$folder/$(VENV); \
		ln -sfn "$$PWD/.attune/downloads" $$folder/.attune/downloads; cp -R data/inbox/. $$folder/data/inbox; \
		cp recipes/$$name.yaml $$folder/params.yaml; echo "recipe $$name, in $$folder"; \
		( cd $$folder; $(IN_TURN) $(REPRO); $(ACTIVE) dvc metrics show ); done

##@ Look

summary: install ## Show the results of the last run
	@$(ACTIVE) python -m flows.summary

compare-data: install ## Show what changed in the data since the last commit (BASE=HEAD~1, HEAD=… for others; ARGS=--texts)
	@$(ACTIVE) python -m flows.compare_data $(ARGS) -- $(or $(BASE),HEAD) $(or $(HEAD),workspace)

review: install ## Say what a commit changes, what that did, and whether it can be rebuilt (BASE=…, HEAD=…: docs/reviewing.md)
	@$(ACTIVE) python -m flows.review $(if $(BASE),--base "$$BASE") $(if $(HEAD),--head "$$HEAD") $(ARGS)

lineage: install ## Show what made a registered model (MODEL=NAME/3 or @champion; ARGS='--restore FOLDER' restores it all)
	@$(ACTIVE) python -m flows.lineage $(ARGS) -- $(if $(MODEL),"$(MODEL)")

champion: install ## Show who is champion in MLflow's registry, and who was
	@$(ACTIVE) python -m flows.champion $(ARGS)

ui: install ## Open the MLflow UI on http://127.0.0.1:5000 (PORT=… for another port)
	@case "$$MLFLOW_TRACKING_URI" in http*) echo "MLFLOW_TRACKING_URI names a server already: open it in a browser";; \
	*) $(ACTIVE) mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$$PWD/mlflow.db}" \
		--host 127.0.0.1 --port $(or $(PORT),5000);; esac

##@ Ship

serve: install check ## Serve the champion on http://127.0.0.1:5001 (PORT=…; VARIANT=int8, onnx, bf16, torch; MODEL=…: docs/serving.md)
	@case "$(VARIANT)" in ""|torch|onnx|int8|bf16) ;; *) echo "VARIANT is torch, onnx, int8 or bf16, not $(VARIANT)" >&2; exit 1;; esac
	@model=$(if $(MODEL),"$(MODEL)",$$($(ACTIVE) python -m flows.champion --uri)) && \
	$(ACTIVE) MLFLOW_TRACKING_URI="$${MLFLOW_TRACKING_URI:-sqlite:///$$PWD/mlflow.db}" \
		SERVING_MODEL_CONFIG='{$(if $(VARIANT),"variant": "$(VARIANT)")}' \
		python -m flows.serve "$$model" --port $(or $(PORT),5001)

predict: install ## Predict the rows of a file: IN=rows.csv OUT=predicted.parquet (ARGS=--keep-all and more: docs/prediction.md)
	@test -n "$(IN)" -a -n "$(OUT)" || { echo "say what and where to: make predict IN=rows.csv OUT=predicted.parquet"; exit 2; }
	@$(ACTIVE) python -m flows.predict $(if $(MODEL),--model "$(MODEL)") $(if $(VARIANT),--variant "$(VARIANT)") $(ARGS) -- "$(IN)" "$(OUT)"

register: install ## Put the trained model through its gates once more (after the tracking server was away, say)
	@$(IN_TURN) $(REPRO) --force --single-item register

rollback: install ## Put the previous champion back into use (ARGS='--to 3 --reason "why"')
	@$(ACTIVE) python -m flows.champion --rollback $(ARGS)

publish: install ## Bring MLflow up to date with the files, after the server was away
	@$(ACTIVE) python -m stages.tracking.publish

##@ Schedule

deploy: install ## Deploy what prefect.yaml declares to the Prefect server (docs/deployments.md)
	@$(ACTIVE) python -m flows.deploy

services: install ## Start Prefect, a worker and MLflow on this machine (PREFECT_PORT=…, MLFLOW_PORT=…; ARGS=status lists them)
	@$(ACTIVE) PREFECT_PORT=$(PREFECT_PORT) MLFLOW_PORT=$(MLFLOW_PORT) python -m flows.services $(or $(ARGS),start)

stop: install ## End what `make services` started
	@$(ACTIVE) python -m flows.services stop

##@ Develop

install: $(VENV)/.installed ## Make .venv with the pinned dependencies (done by the other targets when needed)

lint: $(VENV)/.installed-dev ## Check style, types and import rules
	@$(ACTIVE) ruff check . && $(ACTIVE) ruff format --check . && $(ACTIVE) mypy stages flows && $(ACTIVE) lint-imports

test: $(VENV)/.installed-dev ## Run the whole test suite
	@$(ACTIVE) OMP_NUM_THREADS=1 env -u MLFLOW_TRACKING_URI -u PREFECT_API_URL python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder $(ARGS)

format: $(VENV)/.installed-dev ## Put the code into the project's format
	@$(ACTIVE) ruff check --fix . ; $(ACTIVE) ruff format .

hooks: $(VENV)/.installed-dev ## Check style and params before each commit: install the hooks of .pre-commit-config.yaml
	@$(ACTIVE) pre-commit install

schema: install ## Write params.schema.json (for editors), docs/params.md and the table of docs/tasks.md from the code
	@$(ACTIVE) python -m stages.common.params --schema > params.schema.json && $(ACTIVE) python -m stages.common.params --reference > docs/params.md
	@page=$$($(ACTIVE) python -m stages.common.params --tasks) && printf '%s\n' "$$page" > docs/tasks.md

lock: ## Resolve requirements*.txt again and write constraints.txt
	rm -rf .attune/lock && $(PYTHON) -m venv .attune/lock
	.attune/lock/bin/pip install --quiet -r requirements-dev.txt
	(sed -n '/^#/p' constraints.txt; .attune/lock/bin/pip freeze | sed -E 's/^torch==([0-9.]+).*/torch==\1/') > .attune/constraints.txt
	mv .attune/constraints.txt constraints.txt

clean: ## Remove .venv, logs and work folders (data, models, cache and MLflow's records stay)
	@for lock in .attune/pipeline.lock .attune/worktrees/*.lock; do test ! -e "$$lock" || flock --nonblock "$$lock" true || \
		{ echo "a run is at work here ($$lock): wait for it, or end it" >&2; exit 1; }; done
	rm -rf $(VENV) .attune logs

help: ## Say what each target does
	@awk -F ':.*## ' '/^##@ / {print "\n" substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

$(VENV)/.installed: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Attune needs Python 3.11 or newer; name one with make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned dependencies into $(VENV) (once; some minutes) …"
	@PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
