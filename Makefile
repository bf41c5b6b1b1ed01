# Every command makes the virtual environment and brings what it needs on first use.
#
# Building needs a fifth of requirements.txt, so it is installed in two steps, each with a
# stamp, into one environment: first the section "Building the site", with all pins as
# constraints for what it brings along, then, when a command runs models, the whole.

PYTHON ?= python3
PORT ?= 8000

VENV := .venv
BIN := $(VENV)/bin
SITE := $(VENV)/.site-ready
READY := $(VENV)/.ready
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
ENGINE := PYTHONPATH=book $(BIN)/python -m

.PHONY: help book serve check test lab refresh clean

help: ## Show these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

book: $(SITE) ## Build both editions into _build/site
	$(ENGINE) engine.build

serve: book ## Build the book and serve it on this machine (PORT=8000)
	@echo "Read the book at http://127.0.0.1:$(PORT) (stop with Ctrl-C)"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/site

check: $(SITE) ## Compare both languages of every page (two seconds)
	$(ENGINE) engine.parity

test: $(READY) ## Check style and types, run all tests, compare the notebooks' outputs
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest --nbval

lab: $(READY) ## Open the notebooks in JupyterLab
	@folder=$$($(BIN)/python -c 'import jupyter_server; print(jupyter_server.DEFAULT_STATIC_FILES_PATH)'); \
		mkdir -p "$$folder/custom" && cp book/styles/jupyterlab.css "$$folder/custom/custom.css"
	$(BIN)/jupyter lab --custom-css notebooks

refresh: $(READY) ## Run the notebooks again and store their outputs (NB=path for one)
	$(ENGINE) engine.refresh $(NB)

clean: ## Remove what was built (the virtual environment stays)
	rm -rf _build book/node_modules

$(SITE): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or later is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Choose another one with: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	sed -n '/^# Building the site/,/^[[:space:]]*$$/p' requirements.txt > $(VENV)/site.txt
	grep '==' requirements.txt > $(VENV)/pins.txt
	$(INSTALL) --no-compile -r $(VENV)/site.txt -c $(VENV)/pins.txt
	@touch $@

$(READY): $(SITE) pyproject.toml
	$(INSTALL) -r requirements.txt
	@touch $@
