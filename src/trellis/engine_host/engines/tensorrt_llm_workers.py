# SPDX-License-Identifier: Apache-2.0
"""The processes that TensorRT-LLM's LLM API starts for the model, and whether they still run.

The library looks at a dead worker only when the next request or answer comes: what is in flight
waits for ever.
"""

import time
from pathlib import Path
from typing import NamedTuple

from trellis.engine_host.engines.keeper import children

WORKER = b"mpi4py.futures.server"  # the module that MPI runs in each of them
LOOK_SECONDS = 0.02


class Worker(NamedTuple):
    """A process, and when it began, in the kernel's ticks: a number may be given again."""

    process: int
    began: str


def find_workers(parent: int) -> list[Worker]:
    """The workers below a process, at any depth."""
    found = []
    for process in children(parent):
        state = _state(process)
        if state is not None and WORKER in _command(process):
            found.append(Worker(process, state[1]))
        found += find_workers(process)
    return found


def dead_worker(workers: list[Worker]) -> Worker | None:
    """The first that does not run any more."""
    return next((worker for worker in workers if not _lives(worker)), None)


def dies_within(seconds: float, workers: list[Worker]) -> Worker | None:
    """The same, waiting so long for one: its connections are closed before its process is gone."""
    end = time.monotonic() + seconds
    while (dead := dead_worker(workers)) is None and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
    return dead


def _lives(worker: Worker) -> bool:
    state = _state(worker.process)
    return state is not None and state[0] not in "ZX" and state[1] == worker.began


def _state(process: int) -> tuple[str, str] | None:
    """The kernel's letter for what a process does, and when it began."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return None


def _command(process: int) -> list[bytes]:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
