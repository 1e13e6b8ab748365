# SPDX-License-Identifier: Apache-2.0
"""Many streams at once over HTTP, each on a connection of its own; parsed when all have ended."""

import itertools
import json
import select
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accounting import sample
from grpc_stream import GrpcStream
from http_stream import HttpStream, Piece

EVENT = b"data:"
DONE = b"[DONE]"  # vLLM's last event
SECONDS = 300.0  # that all streams may take
Numbers = dict[str, Any]
Connection = HttpStream | GrpcStream


@dataclass
class Stream:
    """What one stream got: when it was asked for, when its events came (s), its text or ids."""

    sent: float
    times: list[float]
    text: str = ""
    ids: list[int] = field(default_factory=list)


@dataclass
class Burst:
    """All streams of a burst, and the CPU seconds of the server's processes over it, by pid."""

    streams: list[Stream]
    cpu: dict[int, float]


def burst(
    port: int, requests: Sequence[bytes], pids: Sequence[int], text_of: Callable[[Any], str]
) -> Burst:
    """Send all requests together and read all answers.

    Args:
        text_of: the text in the JSON of one event.

    Raises RuntimeError for an error that a server answered, or if it takes too long.
    """
    sent, pieces, cpu = _asked([HttpStream("127.0.0.1", port) for _ in requests], requests, pids)
    streams = [read_stream(begin, came, text_of) for begin, came in zip(sent, pieces, strict=True)]
    return Burst(streams, cpu)


def grpc_burst(port: int, requests: Sequence[bytes], pids: Sequence[int], key: str = "") -> Burst:
    """The same of serialized ModelInferRequests, with an API key; texts are not read."""
    connections = [GrpcStream("127.0.0.1", port, key) for _ in requests]
    sent, pieces, cpu = _asked(connections, requests, pids)
    if not all(pieces):
        raise RuntimeError("a stream got nothing")
    streams = [
        Stream(begin, [when for when, _ in came]) for begin, came in zip(sent, pieces, strict=True)
    ]
    return Burst(streams, cpu)


def _asked(
    connections: Sequence[Connection], requests: Sequence[bytes], pids: Sequence[int]
) -> tuple[list[float], list[list[Piece]], dict[int, float]]:
    """When each request was sent, what came for it, and the CPU seconds meanwhile."""
    before = sample(pids)
    sent = []
    for connection, request in zip(connections, requests, strict=True):
        sent.append(time.perf_counter())
        connection.start(request)
    _read_all(connections)
    after = sample(pids)
    for connection in connections:
        connection.socket.close()
    cpu = {pid: after[pid] - before[pid] for pid in after if pid in before}
    return sent, [connection.pieces for connection in connections], cpu


def _read_all(connections: Sequence[Connection]) -> None:
    poll = select.epoll()
    open_ones = {connection.socket.fileno(): connection for connection in connections}
    for descriptor in open_ones:
        poll.register(descriptor, select.EPOLLIN)
    limit = time.monotonic() + SECONDS
    while open_ones:
        if time.monotonic() > limit:
            raise RuntimeError(f"{len(open_ones)} streams did not end in {SECONDS:.0f} s")
        for descriptor, _ in poll.poll(1.0):
            if open_ones[descriptor].read():
                poll.unregister(descriptor)
                del open_ones[descriptor]
    poll.close()


def read_stream(sent: float, pieces: Sequence[Piece], text_of: Callable[[Any], str]) -> Stream:
    """The events in what came. Raises RuntimeError with what is no stream's answer."""
    whole = b"".join(data for _, data in pieces)
    if not whole.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(whole[:2000].decode(errors="replace"))
    stream = Stream(sent, [when for when, data in pieces if EVENT in data])
    for line in whole.splitlines():
        if not line.startswith(EVENT) or line[len(EVENT) :].strip() == DONE:
            continue
        event = json.loads(line[len(EVENT) :])
        if "error" in event:
            raise RuntimeError(str(event["error"]))
        stream.text += text_of(event)
    return stream


def summary(streams: Sequence[Stream], tokens: int) -> Numbers:
    """Of streams that got `tokens` each: tokens per second, and times in milliseconds."""
    begin = min(stream.sent for stream in streams)
    end = max(stream.times[-1] for stream in streams)
    gaps = [
        later - earlier for stream in streams for earlier, later in itertools.pairwise(stream.times)
    ]
    return {
        "streams": len(streams),
        "tokens": tokens * len(streams),
        "seconds": end - begin,
        "tokens_per_second": tokens * len(streams) / (end - begin),
        "first_token_ms": spread([stream.times[0] - stream.sent for stream in streams]),
        "gap_ms": spread(gaps),
        "arrivals": len(gaps) + len(streams),
    }


def spread(seconds: Sequence[float]) -> Numbers:
    """Median, 99th percentile and largest, in milliseconds; {} of nothing."""
    if not seconds:
        return {}
    twice = seconds if len(seconds) > 1 else [*seconds, *seconds]  # quantiles wants two
    cuts = statistics.quantiles(twice, n=100, method="inclusive")
    return {"median": 1e3 * cuts[49], "p99": 1e3 * cuts[98], "max": 1e3 * max(seconds)}
