"""Goodput under overload: answers that were right and in time, at one and two times the capacity.

    .venv/bin/python benchmarks/overload.py --url http://localhost:8000

First as many clients as `--clients` ask one request after another: what they get is the capacity.
Then requests arrive at random (Poisson, a fixed seed) at that rate and at twice that rate, whether
or not earlier ones were answered, each by a connection of its own that gives up after `--timeout`.
A request repeats a line that the model goes on with, so that its right answer is known. Exit
status 1 unless the goodput at twice the capacity is `--share` of the best or more.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

THINGS = ["apple", "river", "stone", "paper", "cloud", "horse", "table", "glass", "bread", "tiger"]
SHOWN = 70  # characters of an error
WARM = 0.25  # of a run, before what is counted


@dataclass
class Load:
    """What is asked, of whom, and for how long."""

    host: str
    port: int
    tokens: int
    timeout: float
    seconds: float
    stream: bool


@dataclass
class Outcome:
    """What became of the requests of one run: of those that ended after its first quarter."""

    begin: float
    end: float
    sent: int = 0
    good: list[float] = field(default_factory=list)  # latencies, seconds
    bad: Counter[str] = field(default_factory=Counter)
    refused: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, seconds: float) -> "Outcome":
        """Of a run that begins now."""
        now = time.perf_counter()
        return cls(now + WARM * seconds, now + seconds)

    def counts(self) -> bool:
        """Whether what ends now is part of it."""
        return self.begin <= time.perf_counter() < self.end

    @property
    def goodput(self) -> float:
        """Right answers in time, a second."""
        return len(self.good) / (self.end - self.begin)

    def line(self, name: str) -> str:
        """A row of the report."""
        sent = self.sent / (self.end - self.begin)
        figures = [f"{name:22} {sent:8.1f} {self.goodput:8.1f}"]
        for latencies in (self.good, self.refused):
            figures += [f"{percentile(latencies, q):7.2f}" for q in (0.5, 0.99)]
        return " ".join(figures)


def percentile(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 for none."""
    return sorted(values)[int(share * (len(values) - 1))] if values else 0.0


async def ask(load: Load, outcome: Outcome, number: int) -> None:
    """One request on a connection of its own, noted in `outcome`."""
    outcome.sent += outcome.counts()
    thing = THINGS[number % len(THINGS)]
    begin = time.perf_counter()
    try:
        status, text = await asyncio.wait_for(_exchange(load, thing), load.timeout)
    except TimeoutError:
        status, text = 0, "no answer in time"
    except OSError as error:
        status, text = 0, f"connection: {error.strerror or error}"
    seconds = time.perf_counter() - begin
    if not outcome.counts():
        return
    if status == 200 and text.startswith(f"I have a {thing}."):
        outcome.good.append(seconds)
    elif "overloaded" in text:
        outcome.refused.append(seconds)
        outcome.bad[f"{status}: the server is overloaded"] += 1
    else:
        outcome.bad[f"{status}: {text[:SHOWN]}"] += 1


async def _exchange(load: Load, thing: str) -> tuple[int, str]:
    """Status, and the text or the error."""
    line = f"I have a {thing}.\n"
    body = {"text_input": line * 8, "max_tokens": load.tokens, "end_id": -1, "stream": load.stream}
    data = json.dumps(body).encode()
    path = "/v2/models/ensemble/generate" + ("_stream" if load.stream else "")
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Length: {len(data)}"
    reader, writer = await asyncio.open_connection(load.host, load.port)
    try:
        writer.write(f"{head}\r\n\r\n".encode() + data)
        status = int((await reader.readline()).split()[1])
        headers = (await reader.readuntil(b"\r\n\r\n")).lower()
        return status, _text(await _body(reader, headers))
    except (asyncio.IncompleteReadError, IndexError) as error:
        raise ConnectionResetError("closed without an answer") from error
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, headers: bytes) -> bytes:
    """All of it: by its length, or chunk by chunk."""
    if b"content-length:" in headers:
        length = int(headers.split(b"content-length:")[1].split(b"\r\n")[0])
        return await reader.readexactly(length)
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    return body


def _text(body: bytes) -> str:
    """The texts of an answer or of the events of a stream, joined; or the error."""
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.strip()]
    answers = [json.loads(line) for line in lines]
    return "".join(str(answer.get("text_output", answer.get("error", ""))) for answer in answers)


async def closed(load: Load, clients: int) -> Outcome:
    """As many as `clients` at a time, for the whole time."""
    outcome = Outcome.of(load.seconds)

    async def client(number: int) -> None:
        while time.perf_counter() < outcome.end:
            await ask(load, outcome, number)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return outcome


async def arriving(load: Load, rate: float) -> Outcome:
    """Requests at `rate` a second, come what may."""
    outcome, chance = Outcome.of(load.seconds), random.Random(1)
    tasks: list[asyncio.Task[None]] = []
    begin, due = time.perf_counter(), 0.0
    while due < load.seconds:
        await asyncio.sleep(max(begin + due - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(ask(load, outcome, len(tasks))))
        due += chance.expovariate(rate)
    await asyncio.gather(*tasks)
    return outcome


async def measure(load: Load, clients: int, share: float) -> bool:
    """Print the figures; whether the goodput held."""
    peak = await closed(load, clients)
    print(f"{'':22} {'sent/s':>8} {'good/s':>8}  answered: p50, p99 s  refused: p50, p99 s")
    print(peak.line(f"capacity, {clients} clients"), flush=True)
    goodputs = {}
    for times in (1, 2):
        outcome = await arriving(load, max(peak.goodput * times, 0.1))
        goodputs[times] = outcome.goodput
        print(outcome.line(f"{times} x capacity arriving"), flush=True)
        for what, number in outcome.bad.most_common():
            print(f"{number:>31} {what}")
    best = max(peak.goodput, *goodputs.values())
    print(f"goodput at 2 x capacity: {goodputs[2] / best:.0%} of its peak, {best:.1f}/s")
    return goodputs[2] >= share * best


def main() -> int:
    """Read the command line, measure; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16, help="of each answer")
    parser.add_argument("--timeout", type=float, default=30, help="seconds a client waits")
    parser.add_argument("--seconds", type=float, default=60, help="of each of the three runs")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--share", type=float, default=0.9, help="of the peak that has to be held")
    asked = parser.parse_args()
    url = urlsplit(asked.url)
    where = (url.hostname or "localhost", url.port or 80)
    load = Load(*where, asked.tokens, asked.timeout, asked.seconds, asked.stream)
    return 0 if asyncio.run(measure(load, asked.clients, asked.share)) else 1


if __name__ == "__main__":
    sys.exit(main())
