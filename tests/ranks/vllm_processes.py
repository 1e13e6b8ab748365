# SPDX-License-Identifier: Apache-2.0
"""A launcher with vLLM behind it, and which of its processes is which."""

from contextlib import AbstractContextManager
from pathlib import Path

import psutil

from support.launched import Launched
from support.serving import serve

READY_SECONDS = 300  # an import of vLLM and a load, on a busy machine


def serve_vllm(repo: Path, folder: Path, *arguments: str) -> AbstractContextManager[Launched]:
    """A launcher of a vLLM repository, ready inside."""
    return serve(repo, folder, *arguments, launcher=True, ready_seconds=READY_SECONDS)


def is_vllm(process: psutil.Process, role: str) -> bool:
    """Whether a process is vLLM's `Worker` or `EngineCore`, as it names itself."""
    return bool(process.cmdline()) and process.cmdline()[0].startswith(f"VLLM::{role}")


def find(server: Launched, what: str) -> psutil.Process:
    """`worker 0`, `worker 1`, `engine core`, `engine` (its process), `keeper` or `launcher`."""
    if what == "launcher":
        return psutil.Process(server.process.pid)
    tree = [process for process in server.look() if process.is_running()]
    if what.startswith("worker"):
        workers = sorted((each for each in tree if is_vllm(each, "Worker")), key=lambda p: p.pid)
        return workers[int(what.split()[1])]
    if what == "engine core":
        return next(process for process in tree if is_vllm(process, "EngineCore"))
    engines = [each for each in tree if "process_main" in " ".join(each.cmdline())]
    keeper = next(each for each in engines if each.parent() not in engines)
    return keeper if what == "keeper" else next(each for each in engines if each != keeper)
