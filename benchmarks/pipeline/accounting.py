"""What processes cost, by the operating system's books: CPU time and memory.

A process's CPU clock counts user and system time of all its threads, also of those that ended, in
nanoseconds; /proc/PID/stat adds what its own ended children used.
"""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from trellis.server.numpy2_bridge import STUB

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, its ended threads and children included."""
    return _clock(pid) + _ended_children(pid)


def sample(pids: Iterable[int]) -> dict[int, float]:
    """`cpu_seconds` of each process; one that ended is missing."""
    seconds = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            seconds[pid] = cpu_seconds(pid)
    return seconds


def processes(root: int) -> dict[int, str]:
    """The tree of a server: pid -> `tritonserver`, or the Python model whose process it is."""
    named = {root: "tritonserver"}
    for child in psutil.Process(root).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            named[child.pid] = _name(child.cmdline())
    return named


def memory(pids: Iterable[int]) -> float:
    """MiB that processes hold for themselves: anonymous memory and shared memory (PSS).

    Pages of files are left out: libraries are shared with the servers that run beside, so their
    share would say how many those are.
    """
    kib = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            kib += sum(
                int(line.split()[1])
                for line in rollup.splitlines()
                if line.startswith(("Pss_Anon:", "Pss_Shmem:"))
            )
    return kib / 1024


def _clock(pid: int) -> float:
    """Linux names the CPU clock of any process by its pid: ~pid in the upper bits, 2 for "all"."""
    return time.clock_gettime((~pid << 3) | 2)


def _ended_children(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[13]) + int(fields[14])) / TICK  # cutime, cstime


def _name(command: list[str]) -> str:
    if len(command) > 1 and command[0].endswith(STUB):
        return Path(command[1]).parent.parent.name
    return Path(command[0]).name if command else "?"
