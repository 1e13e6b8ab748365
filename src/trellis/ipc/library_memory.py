# SPDX-License-Identifier: Apache-2.0
"""Shared memory that an engine's library makes: files in /dev/shm under names of its own.

Its processes remove them as they end, but not where they are killed. So whoever kills them looks
first what they have mapped, and removes it after.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path

FOLDER = "/dev/shm/"
NAMES = ("psm_", "vllm_dist_")  # of Python's multiprocessing.shared_memory, and of vLLM's C++


def mapped(pids: Iterable[int]) -> set[Path]:
    """The files of a library that processes have mapped; of a process that is gone none."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
                path = line[line.find(FOLDER) :] if FOLDER in line else ""
                if path.removeprefix(FOLDER).startswith(NAMES):
                    found.add(Path(path))
    return found


def remove(files: Iterable[Path]) -> None:
    """Remove them, as far as they are still there."""
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink()
