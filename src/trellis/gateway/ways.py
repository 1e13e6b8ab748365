# SPDX-License-Identifier: Apache-2.0
"""The two ways to an engine: by Triton's HTTP port, and by a model's step socket."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from trellis.gateway.abandoned_requests import AbandonedClient, AbandonedRequests
from trellis.gateway.metrics.meter import Meter
from trellis.gateway.refusals import JSON, Headers
from trellis.gateway.step_channel import StepChannel, StepExchange
from trellis.gateway.triton import Exchange, Triton


class Upstream(Protocol):
    """A request that was asked, and its answer as it comes in pieces: see Exchange."""

    status: int
    content_type: bytes

    async def head(self) -> None:
        """Wait for status and type. Raises TritonLost, or an interruption."""

    async def whole(self, most: int) -> Any:
        """All of an answer that is small or no stream, as one piece."""

    async def pass_to(self, sink: Callable[[Any], bool]) -> bool:
        """Give `sink` each piece as it comes; False once it takes no more."""

    def interrupt(self, error: Exception) -> None:
        """Whoever waits gets this error."""


class Way(Protocol):
    """How one request is asked."""

    async def open(self) -> Upstream:
        """Ask. Raises TritonLost."""

    def close(self, upstream: Any, complete: bool) -> None:
        """The answer was read (`complete`), or nobody wants the rest of it."""


@dataclass(frozen=True)
class TritonWay:
    """By Triton's HTTP port."""

    triton: Triton
    abandoned: AbandonedRequests
    path: str
    body: bytes
    client: AbandonedClient  # who is told once nobody wants the answer
    traceparent: str = ""  # of the span that it belongs to

    async def open(self) -> Exchange:
        """Ask. Raises TritonLost."""
        headers: Headers = [(b"Content-Type", JSON)]
        if self.traceparent:
            headers.append((b"traceparent", self.traceparent.encode()))
        return await self.triton.open("POST", self.path, self.body, headers)

    def close(self, upstream: Exchange, complete: bool) -> None:
        """Keep the connection, or have the engine told."""
        if complete:
            self.triton.release(upstream)
        else:
            self.abandoned.add(upstream, self.client)


@dataclass(frozen=True)
class StepWay:
    """By a model's step socket."""

    channel: StepChannel
    body: bytes
    content_type: bytes  # of the answer
    meter: Meter = field(default_factory=Meter)

    async def open(self) -> StepExchange:
        """Ask. Raises TritonLost."""
        return self.channel.open(self.body, self.content_type, self.meter)

    def close(self, upstream: StepExchange, complete: bool) -> None:
        """Have the engine told, if the answer was not complete."""
        self.channel.close(upstream, complete)
