# SPDX-License-Identifier: Apache-2.0
"""What a crowd of connections, or the largest bodies, do to the streams of others, by turns.

64 streams of the stand-in engine at a steady pace, alone and beside 2,000 connections that send
nothing and 500 that send a request byte by byte; the time between tokens as a client sees it. With
`--bodies` it is beside one client after another that sends the largest body of its kind that the
gateway takes: long texts, lists of many ids, messages, words and schemas.

    python benchmarks/crowd.py --rounds 3
    python benchmarks/crowd.py --rounds 3 --bodies
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from http_gateway import request, served

from trellis.gateway.limits import MIN_BODY_BYTES, MIN_JSON_ITEMS, Limits

DELAY_US = 20_000
TOKENS = 500
EVENT = b"data: {"
SLOW = b"POST /v2/models/ensemble/generate HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 4000
SLOW_SECONDS = 1.0  # between the bytes of each slow connection
TEXT = "Streams of others go on. "
WORDS = TEXT * (MIN_BODY_BYTES // len(TEXT) - 100)
MESSAGES = Limits.json_keys // 2 - 10  # a message has two keys
NUMBERS = MIN_JSON_ITEMS - 1000
SCHEMA = {f"property {number}": {"type": "integer"} for number in range(Limits.json_keys // 2 - 20)}
V1, V2 = "/v1", "/v2/models/ensemble"


def largest() -> dict[str, bytes]:
    """Requests with the largest bodies, by what is large in them."""
    chat: dict[str, Any] = {"model": "ensemble", "messages": [{"role": "user", "content": "Hi"}]}
    asked = {
        "text of /generate": (f"{V2}/generate", {"text_input": WORDS, "max_tokens": 1}),
        "words of /generate": (
            f"{V2}/generate",
            {"text_input": "Hi", "max_tokens": 1, "bad_words": ["word"] * NUMBERS},
        ),
        "text of a chat": (
            f"{V1}/chat/completions",
            chat | {"messages": [{"role": "user", "content": WORDS}]},
        ),
        "messages of a chat": (
            f"{V1}/chat/completions",
            chat | {"messages": [{"role": "user", "content": TEXT * 5}] * MESSAGES},
        ),
        "schema of a chat": (
            f"{V1}/chat/completions",
            chat
            | {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "large",
                        "schema": {"type": "object", "properties": SCHEMA},
                    },
                }
            },
        ),
        "ids of a prompt": (
            f"{V1}/completions",
            {"model": "ensemble", "max_tokens": 1, "prompt": [300] * NUMBERS},
        ),
        "text of /tokenize": ("/tokenize", {"model": "ensemble", "prompt": WORDS}),
        "ids of /detokenize": ("/detokenize", {"model": "ensemble", "tokens": [300] * NUMBERS}),
        "no JSON": (f"{V1}/responses", "[" * (MIN_BODY_BYTES - 10)),
    }
    made = {}
    for name, (path, fields) in asked.items():
        body = fields.encode() if isinstance(fields, str) else json.dumps(fields).encode()
        assert len(body) <= MIN_BODY_BYTES, f"{name}: {len(body)} bytes"
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        made[name] = head.encode() + body
    return made


async def _status(port: int, asked: bytes) -> str:
    """The status of a request's answer, which is read to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(asked)
    answer = await reader.read()
    writer.close()
    return answer[9:12].decode() or "no answer"


@contextlib.asynccontextmanager
async def bodies(port: int, asked: dict[str, bytes], statuses: Counter[str]) -> AsyncIterator[None]:
    """Large bodies one after the other; `statuses` gets what was answered to each kind."""

    async def send() -> None:
        for name in itertools.cycle(asked):
            statuses[f"{name}: {await _status(port, asked[name])}"] += 1

    sending = asyncio.get_running_loop().create_task(send())
    try:
        yield
    finally:
        assert not sending.done(), sending.exception()
        sending.cancel()


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


async def measure(
    port: int, streams: int, others: AbstractAsyncContextManager[None]
) -> tuple[float, float, float]:
    """Milliseconds between tokens: p50, p99 and the longest."""
    async with others:
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
    parser.add_argument("--bodies", action="store_true", help="beside large bodies, not a crowd")
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    beside = "largest bodies" if given.bodies else "crowd"
    asked = largest()
    with served(DELAY_US) as running:
        port = running.server.settings.http_port
        asyncio.run(measure(port, 4, contextlib.nullcontext()))
        for _ in range(given.rounds):
            for name in ("alone", beside):
                statuses: Counter[str] = Counter()
                others: AbstractAsyncContextManager[None] = contextlib.nullcontext()
                if name != "alone":
                    others = (
                        bodies(port, asked, statuses)
                        if given.bodies
                        else crowd(port, given.idle, given.slow)
                    )
                p50, p99, most = asyncio.run(measure(port, given.streams, others))
                print(
                    json.dumps(
                        {
                            "streams": given.streams,
                            "beside": name,
                            "p50_ms": round(p50, 1),
                            "p99_ms": round(p99, 1),
                            "max_ms": round(most, 1),
                        }
                        | ({"answered": dict(statuses)} if statuses else {})
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
