# SPDX-License-Identifier: Apache-2.0
"""Requests whose clients are gone: their engines are told, until the answers have ended.

An answer that nobody wants is read to its end all the same: Triton 24.10 never finishes a request
of an ensemble that is cancelled between two steps. A Python engine hears of it by a datagram with
the request's inner id (ipc/disconnect_sender.py), the C++ backend by a request that stops that id.
Either may come too early, or find nobody who listens: so it is said again for as long as the answer
goes on. How many are read at once, and each for how long, is bounded.
"""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

from trellis.gateway.body import stop_body
from trellis.gateway.limits import Limits
from trellis.gateway.triton import Exchange, Triton, TritonLost
from trellis.ipc.disconnect_sender import DisconnectSender

AGAIN_SECONDS = 1.0
IDS_AT_ONCE = 192  # in one datagram of at most 8,192 bytes
STOPS_AT_ONCE = 64


class AbandonedRequests:
    """All of them. `add` one with what is left of its answer."""

    def __init__(
        self, triton: Triton, server_pid: int, limits: Limits, loop: asyncio.AbstractEventLoop
    ) -> None:
        """`server_pid`: of the process tritonserver."""
        self._triton = triton
        self._limits = limits
        self._loop = loop
        self._timers: dict[Exchange, asyncio.TimerHandle] = {}  # the oldest first
        self._ids: dict[Exchange, str] = {}  # of those that a Python engine may work for
        self._stops: set[asyncio.Task[None]] = set()
        self._stops_at_once = asyncio.Semaphore(STOPS_AT_ONCE)
        self._host = _HostNotices(server_pid, self._ids, loop)

    def __len__(self) -> int:
        return len(self._timers)

    def __contains__(self, exchange: object) -> bool:
        return exchange in self._timers

    def add(self, exchange: Exchange, inner_id: str, stop_path: str = "") -> None:
        """Nobody wants the rest of this answer.

        `stop_path`: of the ensemble that ends a request by its id, for an engine that knows
        requests by nothing else.
        """
        if len(self._timers) >= self._limits.abandoned:
            self._forget(oldest := next(iter(self._timers)))
            oldest.close()
        seconds = self._limits.abandoned_seconds
        self._timers[exchange] = self._loop.call_later(seconds, exchange.close)
        exchange.drain(self._forget)
        if stop_path:
            task = self._loop.create_task(self._stop_until_it_ends(exchange, inner_id, stop_path))
            self._stops.add(task)
            task.add_done_callback(self._stops.discard)
        else:
            self._ids[exchange] = inner_id
            self._host.tell(inner_id)

    def _forget(self, exchange: Exchange) -> None:
        self._ids.pop(exchange, None)
        timer = self._timers.pop(exchange, None)
        if timer is not None:
            timer.cancel()

    async def _stop_until_it_ends(self, exchange: Exchange, inner_id: str, path: str) -> None:
        """A stop may overtake the request itself, and then ends nothing."""
        while True:
            async with self._stops_at_once:
                with contextlib.suppress(TritonLost):
                    await self._triton.ask("POST", path, stop_body(inner_id))
            await asyncio.sleep(AGAIN_SECONDS)
            if exchange not in self:
                return

    async def close(self) -> None:
        """Cut all answers off, and say nothing more."""
        for exchange in list(self._timers):
            exchange.close()
        for task in self._stops:
            task.cancel()
        await asyncio.gather(*self._stops, return_exceptions=True)
        self._host.close()


class _HostNotices:
    """Tells the engine host on a thread, which may have to wait for it."""

    def __init__(
        self, server_pid: int, open_ids: dict[Exchange, str], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._open_ids = open_ids  # told again as long as they are in here
        self._loop = loop
        self._host = DisconnectSender(server_pid)
        self._thread = ThreadPoolExecutor(1, "gone")
        self._next: list[str] = []
        self._telling = False
        self._timer: asyncio.TimerHandle | None = None  # one for all

    def tell(self, inner_id: str) -> None:
        self._next.append(inner_id)
        if len(self._next) == 1:
            self._loop.call_soon(self._tell)

    def close(self) -> None:
        """Tell what is left, then end the thread."""
        if self._timer is not None:
            self._timer.cancel()
        ids, self._next = self._next, []
        self._thread.submit(self._send, ids)
        self._thread.shutdown()
        self._host.close()

    def _tell(self) -> None:
        """One job at a time: what comes while a host is behind gathers, and goes at once."""
        if self._telling or not self._next:
            return
        ids, self._next = self._next, []
        self._telling = True
        job = self._loop.run_in_executor(self._thread, self._send, ids)
        job.add_done_callback(self._told)
        if self._timer is None:
            self._timer = self._loop.call_later(AGAIN_SECONDS, self._tell_again)

    def _told(self, _: "asyncio.Future[None]") -> None:
        self._telling = False
        self._tell()

    def _tell_again(self) -> None:
        self._timer = None
        self._next = list(dict.fromkeys([*self._next, *self._open_ids.values()]))
        self._tell()

    def _send(self, ids: list[str]) -> None:
        for start in range(0, len(ids), IDS_AT_ONCE):
            self._host.tell(*ids[start : start + IDS_AT_ONCE])
