# Every target sets up what it needs in .venv, and nothing outside of this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable

# pyright does not follow package-dir mappings: it finds what benchmarks and examples import in links.
ROOMS := ir passes targets compiler runtime hwmodel
NAMED := $(VENV)/named/fick

SYSTEM := qemu-user libc6-arm64-cross libc6-armhf-cross default-jdk-headless pocl-opencl-icd ocl-icd-libopencl1

.PHONY: help demo deps test check bench docs clean
.DELETE_ON_ERROR:

help:
	@echo "make demo   compile a trained text-to-image pipeline for this machine and draw with it"
	@echo "make deps   install from Debian what the tests run Arm, GPU and Java code with (as root)"
	@echo "make test   run the tests"
	@echo "make check  run the linter, the type checker, the import rules, and see that docs/ is as the code says"
	@echo "make bench  measure against the peers and print the README's table"
	@echo "make docs   write docs/cli.md, docs/recipes.md and the tables of docs/hardware.md from the code"
	@echo "make clean  remove .venv and everything that was built"

demo: $(VENV)/.full
	@$(BIN)/python examples/emoji.py

deps:
	@apt-get update -qq
	@apt-get install -y -qq $(SYSTEM)

# What Arm, GPU and Java code is run by comes from the system: nothing here can bring it.
test: $(VENV)/.full
	@command -v qemu-aarch64 >/dev/null && test -d /usr/aarch64-linux-gnu -a -d /usr/arm-linux-gnueabihf || \
		{ echo "make test runs Arm code in an emulator; make deps installs it on Debian"; exit 1; }
	@command -v javac >/dev/null || { echo "make test runs Java; make deps installs a JDK on Debian"; exit 1; }
	@ls /etc/OpenCL/vendors/*.icd >/dev/null 2>&1 && ldconfig -p | grep -q libOpenCL.so.1 || \
		{ echo "make test runs GPU code on PoCL; make deps installs it on Debian"; exit 1; }
	@TVM_NUM_THREADS=2 $(BIN)/python -m pytest -n 2 --dist loadfile --durations=10

check: $(VENV)/.full
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p $(NAMED) && ln -sf $(addprefix $(CURDIR)/,fick/__init__.py $(ROOMS)) $(NAMED)/
	@$(BIN)/pyright
	@$(BIN)/python tools/import_rules.py
	@$(BIN)/python tools/reference_docs.py --check

bench: $(VENV)/.full
	@$(BIN)/python benchmarks/unet.py

docs: $(VENV)/.full
	@$(BIN)/python tools/reference_docs.py
	@$(BIN)/python tools/hardware_docs.py

clean:
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.full: pyproject.toml setup.py | $(BIN)/python
	@echo "Installing fick, torch and the development tools into $(VENV) (a few minutes the first time)"
	@$(INSTALL) '.[compile,explore,torch,metrics,dev]'
	@touch $@

# A half-made environment is removed, so that the next try does not take it for a whole one.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "fick needs Python 3.11 or newer, and $(PYTHON) is %d.%d: name a newer one, as in make PYTHON=python3.12." % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
