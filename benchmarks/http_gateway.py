"""What the HTTP gateway costs: the same streams through it and straight to Triton, in turns.

The engine is the stand-in of tests/support/standin at a pace that Triton's HTTP server can hold.
CPU is that of tritonserver, its models' processes and the gateway; the client's is not in it.
Needs gcc.

    python benchmarks/http_gateway.py --streams 1:50 --streams 16:2000 --streams 64:5000
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
for folder in ("src", "tests"):
    sys.path.insert(0, str(ROOT / folder))

from support.standin import build_standin  # noqa: E402
from support.standin_server import Served, serve  # noqa: E402
from support.tokenizer_folders import Folders  # noqa: E402

CHUNK = b"data: {"
SECONDS_TO_SETTLE = 1.0
MOST_TOKENS = 1500  # of one request, within the engine's context


def request(port: int, tokens: int, stream: bool = True, close: bool = True) -> bytes:
    """One request to the ensemble."""
    body = json.dumps(
        {
            "id": os.urandom(8).hex(),
            "text_input": "Hi there",
            "max_tokens": tokens,
            "stream": stream,
        }
    ).encode()
    kind = "generate_stream" if stream else "generate"
    head = f"POST /v2/models/ensemble/{kind} HTTP/1.1\r\nHost: localhost:{port}\r\n"
    head += f"Content-Length: {len(body)}\r\n" + ("Connection: close\r\n" if close else "") + "\r\n"
    return head.encode() + body


async def stream(port: int, tokens: int) -> tuple[int, float]:
    """Read one stream to its end: its chunks, and the seconds to the first."""
    begin = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(port, tokens))
    first, chunks, tail = 0.0, 0, b""
    while data := await reader.read(65536):
        data = tail + data
        chunks += data.count(CHUNK)
        tail = data[-(len(CHUNK) - 1) :] if not data.endswith(b"\n") else b""
        first = first or (time.perf_counter() - begin if chunks else 0.0)
    writer.close()
    return chunks, first


async def streams(port: int, count: int, tokens: int) -> list[tuple[int, float]]:
    """Several at once, each one request after another until it has that many tokens."""

    async def one() -> list[tuple[int, float]]:
        parts = [min(MOST_TOKENS, tokens - start) for start in range(0, tokens, MOST_TOKENS)]
        return [await stream(port, part) for part in parts]

    return [
        result
        for results in await asyncio.gather(*(one() for _ in range(count)))
        for result in results
    ]


def cpu(processes: list[psutil.Process]) -> float:
    """Seconds of CPU that these have used."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def round_trips(port: int, count: int) -> list[float]:
    """Microseconds of a readiness request and its answer, on one connection."""

    async def run() -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        times = []
        for _ in range(count):
            begin = time.perf_counter()
            writer.write(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            times.append((time.perf_counter() - begin) * 1e6)
        writer.close()
        return times

    return asyncio.run(run())


@contextlib.contextmanager
def served(delay: int) -> Iterator[Served]:
    """A server with the stand-in at this pace, in microseconds a token."""
    with tempfile.TemporaryDirectory(prefix="front-bench-") as name:
        folder = Path(name)
        for made in ("backends", "tokenizers"):
            (folder / made).mkdir()
        library = build_standin(folder / "backends")
        llama = Folders(folder / "tokenizers")["llama"]
        with serve("1.x", folder, library, llama, [], token_delay_us=str(delay)) as running:
            yield running


def measure(count: int, delay: int, seconds: float, rounds: int) -> None:
    """Print a line for each way and their difference."""
    with served(delay) as running:
        server = running.server
        front = psutil.Process(server.gateway.pid) if server.gateway else None
        assert front is not None, "the gateway does not run"
        tree = psutil.Process(server.process.pid)
        everything = [tree, *tree.children(recursive=True), front]
        tokens = max(int(seconds / (delay / 1e6)), 100)
        ways = {"direct": server.triton_port, "front": server.settings.http_port}
        used: dict[str, list[tuple[float, float, float, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, port in ways.items():
                time.sleep(SECONDS_TO_SETTLE)
                cpu_before, own_before, begin = cpu(everything), cpu([front]), time.perf_counter()
                got = asyncio.run(streams(port, count, tokens))
                took = time.perf_counter() - begin
                chunks = sum(chunks for chunks, _ in got)
                used[way].append(
                    (
                        (cpu(everything) - cpu_before) / chunks * 1e6,
                        (cpu([front]) - own_before) / chunks * 1e6,
                        chunks / took,
                        statistics.median(first for _, first in got) * 1e3,
                    )
                )
        for way, results in used.items():
            total, own, rate, first = (
                statistics.median(column) for column in zip(*results, strict=True)
            )
            print(
                f"{count:3} streams, {delay:5} us a token, {way:6}: {total:6.1f} us CPU a chunk"
                f" (front {own:4.1f}), {rate:6.0f} chunks/s, first chunk {first:6.2f} ms"
                f"   [{', '.join(f'{result[0]:.0f}' for result in results)}]",
                flush=True,
            )
        for way, port in ways.items():
            times = sorted(round_trips(port, 2000))
            print(f"    readiness, {way:6}: {times[1000]:5.0f} us, 99th {times[1980]:5.0f} us")


def main() -> None:
    """Measure each pair of streams and pace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", action="append", help="COUNT:MICROSECONDS a token")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each stream")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for pair in given.streams or ["1:50", "16:2000", "64:5000"]:
        count, delay = map(int, pair.split(":"))
        measure(count, delay, given.seconds, given.rounds)


if __name__ == "__main__":
    main()
