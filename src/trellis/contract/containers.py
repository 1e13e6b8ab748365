# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's Triton containers and the TensorRT-LLM in each; and the one that is here, if any."""

import importlib.metadata
import json
import os
from dataclasses import dataclass
from pathlib import Path

from trellis.contract.release import version_numbers

TABLE = Path(__file__).parent / "trtllm_containers.json"
# Older than the table, from its note; of two with one release the better one first.
BEFORE_TABLE = {"24.03": "0.8.0", "24.02": "0.8.0", "23.10": "0.5.0", "23.11": "0.5.0"}
INSTALLED = "installed"  # the source of a package that this Python has
IMAGE = "nvcr.io/nvidia/tritonserver:{triton}-trtllm-python-py3"
# Those of the same matrix whose vLLM the engine `vllm` was written for, the newest first.
VLLM_CONTAINERS = {"26.08": "0.27.1", "26.07": "0.24.0"}
VLLM_IMAGE = "nvcr.io/nvidia/tritonserver:{triton}-vllm-python-py3"


@dataclass(frozen=True)
class Runtime:
    """The TensorRT-LLM that is here; '' for none, or none that is known."""

    version: str
    source: str


def containers() -> dict[str, str]:
    """Triton container -> its TensorRT-LLM, the newest first: {"26.07": "1.2.1", ...}."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))["containers"]
    return {row["triton"]: row["tensorrt_llm"] for row in table} | BEFORE_TABLE


def containers_for(version: str) -> list[str]:
    """The containers with that release: first those of the very version, the newest first."""
    wanted = version_numbers(version)
    fitting = [(name, has) for name, has in containers().items() if version_numbers(has) == wanted]
    return [name for name, has in sorted(fitting, key=lambda pair: pair[1] != version)]


def image(triton: str) -> str:
    """The name to pull."""
    return IMAGE.format(triton=triton)


def vllm_image() -> str:
    """The newest container with vLLM."""
    return VLLM_IMAGE.format(triton=next(iter(VLLM_CONTAINERS)))


def installed_runtime() -> Runtime:
    """The package if it is installed, else what the container's own version stands for."""
    try:
        return Runtime(importlib.metadata.version("tensorrt_llm"), INSTALLED)
    except importlib.metadata.PackageNotFoundError:
        pass
    server = os.environ.get("NVIDIA_TRITON_SERVER_VERSION", "")
    return Runtime(containers().get(server, ""), f"Triton container {server}" if server else "")
