# SPDX-License-Identifier: Apache-2.0
"""What a server holds: processes, threads, memory, file descriptors, shared memory."""

import contextlib
import itertools
import re
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import httpx
import psutil

from trellis.server.process import Server
from trellis.server.shared_memory import FOLDER as SHARED_MEMORY

MIB = 2**20
# How much more than at the start there may be at the end.
MEMORY_SHARE = 0.10
# Of an engine's libraries more: OpenVINO's buffers grow with the batches that they have seen.
MEMORY_MIB = {"triton": 64, "models": 64, "engine": 512, "gateway": 64}
TOUCH_MIB, TOUCH_SECONDS, TOUCH_WORDS = 8, 120, 150
STUCK = re.compile(r'has (\d+) in-flight inferences"')
SETTLE_SECONDS = 180
# A process: the gateway's own for large bodies starts with the first of them.
MORE = {"requests": 0, "processes": 1, "threads": 8, "descriptors": 24, "shm_files": 0}


@dataclass(frozen=True)
class Held:
    """One look at a tree of processes; memory is PSS and what is swapped out: all counts once."""

    requests: int
    processes: int
    threads: int
    triton_mib: float
    models_mib: float  # preprocessing, tensorrt_llm and postprocessing, without the engine
    engine_mib: float
    gateway_mib: float
    descriptors: int
    shm_files: int
    shm_mib: float


def look(server: Server) -> Held:
    """What the server and all that it started hold now."""
    tree = psutil.Process().children(recursive=True)  # nothing else is started here
    threads = descriptors = 0
    memory = dict.fromkeys(MEMORY_MIB, 0.0)
    whose = {server.process.pid: "triton"} | dict.fromkeys(server.stubs(), "models")
    if server.gateway is not None:
        whose[server.gateway.pid] = "gateway"
        with contextlib.suppress(psutil.Error):
            whose |= dict.fromkeys(
                (child.pid for child in psutil.Process(server.gateway.pid).children()), "gateway"
            )
    for process in tree:
        with contextlib.suppress(psutil.Error):
            threads += process.num_threads()
            descriptors += process.num_fds()
            memory[whose.get(process.pid, "engine")] += resident_mib(process)
    files = shared_files(server)
    return Held(
        requests=in_flight(server),
        processes=len(tree),
        threads=threads,
        **{f"{part}_mib": held for part, held in memory.items()},
        descriptors=descriptors,
        shm_files=len(files),
        shm_mib=sum(file.stat().st_size for file in files) / MIB,
    )


def slopes(looks: Sequence[tuple[float, Held]]) -> dict[str, float]:
    """How memory went in the later half: MiB an hour, by least squares, for each part.

    Args:
        looks: seconds and what was held then. Of less than two in the later half: no part.
    """
    half = (looks[0][0] + looks[-1][0]) / 2 if looks else 0.0
    later = [(at, held) for at, held in looks if at >= half]
    if len(later) < 2:
        return {}
    hours = [at / 3600 for at, _ in later]
    names = [field.name for field in fields(Held) if field.name.endswith("_mib")]
    return {
        name: statistics.linear_regression(hours, [getattr(held, name) for _, held in later]).slope
        for name in names
    }


def resident_mib(process: psutil.Process) -> float:
    """Its share of memory, swapped out or not."""
    info = process.memory_full_info()
    return float(info.pss + info.swap) / MIB


def touch(server: Server, ask: Callable[[str], object]) -> None:
    """Have the engine use all of its KV cache once: memory that it has not used yet is no leak."""
    last, end = 0.0, time.monotonic() + TOUCH_SECONDS
    with ThreadPoolExecutor(8) as pool:
        for number in itertools.count():
            held = look(server).engine_mib
            if held - last < TOUCH_MIB or time.monotonic() > end:
                return
            last = held
            texts = [f"{number} {row} " + f"word{number}x{row} " * TOUCH_WORDS for row in range(8)]
            list(pool.map(ask, texts))


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
    for part, more in MEMORY_MIB.items():
        before, after = getattr(start, f"{part}_mib"), getattr(end, f"{part}_mib")
        if after > before * (1 + MEMORY_SHARE) + more:
            problems.append(
                f"memory of {part} grew from {before:.0f} to {after:.0f} MiB, more than"
                f" {MEMORY_SHARE:.0%} and {more} MiB"
            )
    return problems


def stuck(log: str, cancelled: int) -> list[str]:
    """What Triton, asked to stop, said of requests that are in flight though nothing runs.

    Triton 24.10 never finishes a request of an ensemble that is cancelled over gRPC: `cancelled`.
    """
    found = [int(number) for number in STUCK.findall(log)]
    if max(found, default=0) <= cancelled:
        return []
    return [f"Triton held {max(found)} requests at the end; {cancelled} were cancelled over gRPC"]


def rows(start: Held, end: Held, slope: dict[str, float]) -> list[tuple[str, str, str, str]]:
    """For the table: what, at the start, at the end, and of memory the slope."""
    return [
        (
            field.name.replace("_mib", ", MiB").replace("_", " "),
            f"{getattr(start, field.name):.0f}",
            f"{getattr(end, field.name):.0f}",
            f"{slope[field.name]:+.0f}" if field.name in slope else "",
        )
        for field in fields(Held)
    ]
