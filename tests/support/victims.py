# SPDX-License-Identifier: Apache-2.0
"""The processes of a server of the demo's engine, and what the launcher's log calls each."""

from collections.abc import Callable

import psutil

from support.engines import ENGINE
from support.launched import Launched


def engine_process(launched: Launched) -> psutil.Process:
    """The process that makes the steps: with a keeper, the child of that."""
    (process,) = launched.stub("tensorrt_llm").children()[:1]
    return process if ENGINE == "openvino" else process.children()[0]


def worker(launched: Launched) -> psutil.Process:
    """A process that a library made for itself."""
    below = engine_process(launched).children(recursive=True)
    return next(each for each in below if "resource_tracker" not in " ".join(each.cmdline()))


VICTIMS: dict[str, Callable[[Launched], psutil.Process]] = {
    "engine": engine_process,
    "tensorrt_llm": lambda launched: launched.stub("tensorrt_llm"),
    "tritonserver": lambda launched: launched.find("tritonserver"),
    "gateway": lambda launched: launched.find("trellis.gateway"),
    "postprocessing": lambda launched: launched.stub("postprocessing"),
    "preprocessing": lambda launched: launched.stub("preprocessing"),
} | ({} if ENGINE == "openvino" else {"worker": worker})
NAMES = {model: f"the process of {model}" for model in VICTIMS} | {
    "engine": "the engine process of tensorrt_llm",
    "gateway": "the HTTP gateway",
    "tritonserver": "tritonserver",
    "worker": "the engine process of tensorrt_llm",
}
