# SPDX-License-Identifier: Apache-2.0
"""Requests whose clients are gone: their engines are told, until the answers have ended.

An answer that nobody wants is read to its end all the same: Triton 24.10 never finishes a request
of an ensemble that is cancelled between two steps. A Python engine hears of it by a datagram with
the request's inner id, sent to that model alone (ipc/disconnect_sender.py), the C++ backend by a
request that stops that id. Either may come too early, or find nobody who listens: so it is said
again for as long as the answer goes on. How many are read at once, and each for how long, is
bounded.
"""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trellis.gateway.body import stop_body
from trellis.gateway.limits import Limits
from trellis.gateway.triton import Exchange, Triton, TritonLost
from trellis.ipc.disconnect_sender import DisconnectSender

AGAIN_SECONDS = 1.0
IDS_AT_ONCE = 192  # in one datagram of at most 8,192 bytes
STOPS_AT_ONCE = 64


@dataclass(frozen=True)
class AbandonedClient:
    """How those who work for a client learn that it is gone."""

    inner_id: str  # of its request
    engines: tuple[str, ...]  # the models that are told
    stop_path: str = ""  # of the ensemble that ends a request by its id; "": the engines are told


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
        # Those that a Python engine may work for.
        self._clients: dict[Exchange, AbandonedClient] = {}
        self._stops: set[asyncio.Task[None]] = set()
        self._stops_at_once = asyncio.Semaphore(STOPS_AT_ONCE)
        self._host = _HostNotices(server_pid, self._clients, loop)

    def __len__(self) -> int:
        return len(self._timers)

    def follow(self, server_pid: int) -> None:
        """Another tritonserver stands where the first did."""
        self._host.follow(server_pid)

    def __contains__(self, exchange: object) -> bool:
        return exchange in self._timers

    def add(self, exchange: Exchange, client: AbandonedClient) -> None:
        """Nobody wants the rest of this answer."""
        if len(self._timers) >= self._limits.abandoned:
            self._forget(oldest := next(iter(self._timers)))
            oldest.close()
        seconds = self._limits.abandoned_seconds
        self._timers[exchange] = self._loop.call_later(seconds, exchange.close)
        exchange.drain(self._forget)
        if client.stop_path:
            task = self._loop.create_task(self._stop_until_it_ends(exchange, client))
            self._stops.add(task)
            task.add_done_callback(self._stops.discard)
        else:
            self._clients[exchange] = client
            self._host.tell(client)

    def _forget(self, exchange: Exchange) -> None:
        self._clients.pop(exchange, None)
        timer = self._timers.pop(exchange, None)
        if timer is not None:
            timer.cancel()

    async def _stop_until_it_ends(self, exchange: Exchange, client: AbandonedClient) -> None:
        """A stop may overtake the request itself, and then ends nothing."""
        path, body = client.stop_path, stop_body(client.inner_id)
        while True:
            async with self._stops_at_once:
                with contextlib.suppress(TritonLost):
                    await self._triton.ask("POST", path, body)
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
    """Tells the engine hosts on a thread, which may have to wait for one."""

    def __init__(
        self,
        server_pid: int,
        clients: dict[Exchange, AbandonedClient],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._clients = clients  # told of again as long as they are in here
        self._loop = loop
        self._host = DisconnectSender(server_pid)
        self._thread = ThreadPoolExecutor(1, "gone")
        self._next: list[AbandonedClient] = []
        self._telling = False
        self._timer: asyncio.TimerHandle | None = None  # one for all

    def follow(self, server_pid: int) -> None:
        self._host.server_pid = server_pid

    def tell(self, client: AbandonedClient) -> None:
        self._next.append(client)
        if len(self._next) == 1:
            self._loop.call_soon(self._tell)

    def close(self) -> None:
        """Tell what is left, then end the thread."""
        if self._timer is not None:
            self._timer.cancel()
        clients, self._next = self._next, []
        self._thread.submit(self._send, clients)
        self._thread.shutdown()
        self._host.close()

    def _tell(self) -> None:
        """One job at a time: what comes while a host is behind gathers, and goes at once."""
        if self._telling or not self._next:
            return
        clients, self._next = self._next, []
        self._telling = True
        job = self._loop.run_in_executor(self._thread, self._send, clients)
        job.add_done_callback(self._told)
        if self._timer is None:
            self._timer = self._loop.call_later(AGAIN_SECONDS, self._tell_again)

    def _told(self, _: "asyncio.Future[None]") -> None:
        self._telling = False
        self._tell()

    def _tell_again(self) -> None:
        self._timer = None
        self._next = list(dict.fromkeys([*self._next, *self._clients.values()]))
        self._tell()

    def _send(self, clients: list[AbandonedClient]) -> None:
        ids: dict[str, list[str]] = {}  # by the model that is told
        for client in clients:
            for engine in client.engines:
                ids.setdefault(engine, []).append(client.inner_id)
        for engine, of_engine in ids.items():
            for start in range(0, len(of_engine), IDS_AT_ONCE):
                self._host.tell(engine, of_engine[start : start + IDS_AT_ONCE])
