# SPDX-License-Identifier: Apache-2.0
"""What the gateway's figures cost: a chunk, a request, a look at the page.

    python benchmarks/metrics_cost.py

A step of 64 sequences goes through the gateway's end of the step socket, with and without the
counting of its chunks, by turns; the difference is a chunk's cost, in CPU time of this process.
"""

import asyncio
import time
from collections.abc import Callable
from statistics import median
from typing import Any, cast

from trellis.gateway.metrics.page import written
from trellis.gateway.metrics.record import Record
from trellis.gateway.metrics.registry import Registry
from trellis.gateway.refusals import EVENTS
from trellis.gateway.step_channel import StepChannel

STREAMS, STEPS, ROUNDS = 64, 2000, 9
MOST_US = 1.0  # a chunk


class Uncounted(StepChannel):
    """The same without what counts."""

    def _step(self, events: list[Any]) -> None:
        for event in events:
            exchange = self._exchanges.get(event[0])
            if exchange is not None:
                exchange.take(event)


class Silent:
    """A transport that takes what is written."""

    def write(self, data: bytes) -> None:
        """Nothing."""


def channel(kind: type[StepChannel], registry: Registry) -> StepChannel:
    """One with its streams open, whose chunks are thrown away."""
    made = kind(lambda seconds: registry.detokenized("ensemble", seconds))
    made.connection_made(cast(Any, Silent()))
    for _ in range(STREAMS):
        record = Record()
        record.model = "ensemble"
        exchange = made.open(b"{}", EVENTS, registry.meter(record))
        exchange._sink = lambda _: True
    return made


def us_a_chunk(made: StepChannel) -> float:
    """Microseconds of CPU for each chunk of STEPS steps."""
    message = ["events", [[number, [7]] for number in range(1, STREAMS + 1)]]
    begin = time.process_time()
    for _ in range(STEPS):
        made._take(message)
    return (time.process_time() - begin) / STEPS / STREAMS * 1e6


def us(work: Callable[[], object], times: int) -> float:
    """Microseconds of CPU for one of so many calls."""
    begin = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begin) / times * 1e6


def request(registry: Registry) -> None:
    """All that a request of one sequence adds, from its head to its end."""
    record = Record()
    registry.begin(record)
    record.model, record.prompt_tokens, record.status = "ensemble", 100, 200
    meter = registry.meter(record)
    meter.chunk(1)
    meter.chunk(1)
    meter.ended(["stop", None, 0.01, 0.0])
    record.ended = time.monotonic()
    registry.end(record)


async def main() -> None:
    """Print the table; fails where a chunk costs more than it may."""
    registry = Registry()
    counted, bare = channel(StepChannel, registry), channel(Uncounted, registry)
    rounds = [(us_a_chunk(counted), us_a_chunk(bare)) for _ in range(ROUNDS)]
    cost = median(one - other for one, other in rounds)
    print(f"a chunk, of a step of {STREAMS}: {cost:.3f} us (at most {MOST_US:g})")
    print(f"  with it {median(one for one, _ in rounds):.3f}, "
          f"without {median(other for _, other in rounds):.3f}")  # fmt: skip
    print(f"a request: {us(lambda: request(registry), 5000):.1f} us")
    print(f"a look at the page: {us(lambda: written(registry.collect()), 50):.0f} us")
    if cost > MOST_US:
        raise SystemExit("counting a chunk costs too much")


if __name__ == "__main__":
    asyncio.run(main())
