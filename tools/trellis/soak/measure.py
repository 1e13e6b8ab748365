"""What a server holds: processes, threads, memory, file descriptors, shared memory."""

import contextlib
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import httpx
import psutil

from trellis.server import Server
from trellis.shared_memory import FOLDER as SHARED_MEMORY

MIB = 2**20
# How much more than at the start there may be at the end.
MEMORY_SHARE, MEMORY_MIB = 0.10, 64
SETTLE_SECONDS = 180
MORE = {"requests": 0, "processes": 0, "threads": 8, "descriptors": 24, "shm_files": 0}


@dataclass(frozen=True)
class Held:
    """One look at a tree of processes; memory is the sum of PSS, so that nothing counts twice."""

    requests: int
    processes: int
    threads: int
    memory_mib: float
    descriptors: int
    shm_files: int
    shm_mib: float


def look(server: Server) -> Held:
    """What the server and all that it started hold now."""
    tree = psutil.Process().children(recursive=True)  # nothing else is started here
    threads = descriptors = 0
    memory = 0.0
    for process in tree:
        with contextlib.suppress(psutil.Error):
            threads += process.num_threads()
            descriptors += process.num_fds()
            memory += process.memory_full_info().pss / MIB
    files = shared_files(server)
    return Held(
        in_flight(server),
        len(tree),
        threads,
        memory,
        descriptors,
        len(files),
        sum(file.stat().st_size for file in files) / MIB,
    )


def in_flight(server: Server) -> int:
    """Requests that wait for the engine or run in it, as its metrics say."""
    url = f"http://127.0.0.1:{server.settings.metrics_port}/metrics"
    for line in httpx.get(url, timeout=30).text.splitlines():
        if line.startswith("trellis_requests_in_flight"):
            return int(float(line.split()[-1]))
    return 0


def settle(server: Server) -> None:
    """Wait until nothing runs: what a client left may still run to its end."""
    end = time.monotonic() + SETTLE_SECONDS
    while in_flight(server) and time.monotonic() < end:
        time.sleep(0.5)
    time.sleep(1)


def shared_files(server: Server) -> list[Path]:
    """The files of this server in /dev/shm."""
    return list(SHARED_MEMORY.glob(f"{server.prefix}*"))


def grown(start: Held, end: Held) -> list[str]:
    """What grew beyond its bound."""
    problems = [
        f"{name} grew from {getattr(start, name)} to {getattr(end, name)}, more than {more}"
        for name, more in MORE.items()
        if getattr(end, name) > (name != "requests") * getattr(start, name) + more
    ]
    bound = start.memory_mib * (1 + MEMORY_SHARE) + MEMORY_MIB
    if end.memory_mib > bound:
        problems.append(
            f"memory grew from {start.memory_mib:.0f} to {end.memory_mib:.0f} MiB, more than"
            f" {MEMORY_SHARE:.0%} and {MEMORY_MIB} MiB"
        )
    return problems


def rows(start: Held, end: Held) -> list[tuple[str, str, str]]:
    """For the table: what, at the start, at the end."""
    names = [field.name.replace("_mib", ", MiB").replace("_", " ") for field in fields(Held)]
    return [
        (name, f"{before:.0f}", f"{after:.0f}")
        for name, before, after in zip(names, astuple(start), astuple(end), strict=True)
    ]
