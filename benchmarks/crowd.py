# SPDX-License-Identifier: Apache-2.0
"""What a crowd of idle and slow connections does to the streams of others, by turns.

64 streams of the stand-in engine at a steady pace, alone and beside 2,000 connections that send
nothing and 500 that send a request byte by byte; the time between tokens as a client sees it.

    python benchmarks/crowd.py --rounds 3
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import resource
import time
from collections.abc import AsyncIterator

from http_gateway import request, served

DELAY_US = 20_000
TOKENS = 500
EVENT = b"data: {"
SLOW = b"POST /v2/models/ensemble/generate HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 4000
SLOW_SECONDS = 1.0  # between the bytes of each slow connection


async def gaps(port: int) -> list[float]:
    """Seconds between the tokens of one stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(port, TOKENS))
    times: list[float] = []
    while data := await reader.read(65536):
        times += [time.perf_counter()] * data.count(EVENT)
    writer.close()
    assert len(times) == TOKENS, f"{len(times)} of {TOKENS} tokens"
    return [after - before for before, after in itertools.pairwise(times)]


@contextlib.asynccontextmanager
async def crowd(port: int, idle: int, slow: int) -> AsyncIterator[None]:
    """Connections that are there, and some that send a byte now and then."""
    opened = []
    for _ in range(idle + slow):
        opened.append(await asyncio.open_connection("127.0.0.1", port))
    loop = asyncio.get_running_loop()
    slow_ones = [writer for _, writer in opened[idle:]]
    dripping = loop.create_task(_drip(slow_ones))
    try:
        yield
    finally:
        dripping.cancel()
        for _, writer in opened:
            writer.close()


async def _drip(writers: list[asyncio.StreamWriter]) -> None:
    """A byte a second on each, spread over the second."""
    for at in itertools.count() if writers else ():
        for number, writer in enumerate(writers):
            with contextlib.suppress(OSError):  # it was late, and closed
                writer.write(SLOW[at % len(SLOW) :][:1])
            if number % 50 == 49:
                await asyncio.sleep(SLOW_SECONDS * 50 / len(writers))


async def measure(port: int, streams: int, idle: int, slow: int) -> tuple[float, float, float]:
    """Milliseconds between tokens: p50, p99 and the longest."""
    async with crowd(port, idle, slow):
        await asyncio.sleep(1)
        found = await asyncio.gather(*(gaps(port) for _ in range(streams)))
    ordered = sorted(gap * 1e3 for stream in found for gap in stream)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1]


def main() -> None:
    """Measure by turns, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--idle", type=int, default=2000)
    parser.add_argument("--slow", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with served(DELAY_US) as running:
        port = running.server.settings.http_port
        asyncio.run(measure(port, 4, 0, 0))
        for _ in range(given.rounds):
            for name, idle, slow in (("alone", 0, 0), ("beside", given.idle, given.slow)):
                p50, p99, most = asyncio.run(measure(port, given.streams, idle, slow))
                print(
                    json.dumps(
                        {
                            "streams": given.streams,
                            "connections": name,
                            "p50_ms": round(p50, 1),
                            "p99_ms": round(p99, 1),
                            "max_ms": round(most, 1),
                        }
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
