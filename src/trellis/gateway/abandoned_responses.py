# SPDX-License-Identifier: Apache-2.0
"""Connections to Triton whose clients are gone, until the answers that were stopped have ended."""

import asyncio

from trellis.gateway.settings import DRAIN_SECONDS, MAX_DRAINS
from trellis.gateway.upstream import Upstream


class AbandonedResponses:
    """Reads answers that nobody wants to their ends: so many at once, and each for so long."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timers: dict[Upstream, asyncio.TimerHandle] = {}  # the oldest first
        self._tokens: dict[Upstream, str] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def __contains__(self, upstream: object) -> bool:
        return upstream in self._timers

    def tokens(self) -> list[str]:
        """Those of the clients whose answers have not ended."""
        return list(self._tokens.values())

    def add(self, upstream: Upstream, token: str = "") -> None:
        """Read this one to its end; beyond MAX_DRAINS the oldest is cut off.

        `token`: the client's, if the engine stops its request by it.
        """
        if len(self._timers) >= MAX_DRAINS:
            self._forget(oldest := next(iter(self._timers)))
            oldest.close()
        self._timers[upstream] = self._loop.call_later(DRAIN_SECONDS, upstream.close)
        if token:
            self._tokens[upstream] = token
        upstream.drain(self._forget)

    def close(self) -> None:
        """Cut all off."""
        for upstream in list(self._timers):
            upstream.close()

    def _forget(self, upstream: Upstream) -> None:
        self._tokens.pop(upstream, None)
        timer = self._timers.pop(upstream, None)
        if timer is not None:
            timer.cancel()
