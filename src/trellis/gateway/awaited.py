# SPDX-License-Identifier: Apache-2.0
"""An answer that comes piece by piece, to a task that waits or to a function that it left."""

import asyncio
from collections.abc import Callable
from typing import Any

Sink = Callable[[Any], bool]


class Awaited:
    """What Triton's answers and those of a step socket have in common."""

    def __init__(self) -> None:
        self._sink: Sink | None = None  # while `_left_to` waits
        self._waiter: asyncio.Future[None] | None = None
        self._interruption: Exception | None = None

    def interrupt(self, error: Exception) -> None:
        """Whoever waits for the answer waits no more, and gets this error."""
        self._interruption = error
        self._wake()

    async def _left_to(self, sink: Sink) -> bool:
        """Wait while pieces go to `sink`; whether it took no more, which sets `_sink` to None."""
        self._sink = sink
        try:
            await self._more()
        finally:
            stopped, self._sink = self._sink is None, None
        return stopped

    async def _more(self) -> None:
        """Wait until `_wake` is called. Raises an interruption."""
        if self._interruption is not None:
            raise self._interruption
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._interruption is not None:
            raise self._interruption

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
