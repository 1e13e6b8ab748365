# SPDX-License-Identifier: Apache-2.0
"""The gateway's end of a step socket (ipc/frames.py): one connection to a model, many requests."""

import asyncio
import itertools
import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from trellis.contract.model_names import model_of
from trellis.gateway.awaited import Awaited, Sink
from trellis.gateway.metrics.meter import Meter, bucket_of
from trellis.gateway.triton import NotTaken, TritonLost
from trellis.ipc.frames import (
    EVENTS,
    HELLO,
    LEAVE,
    PROTOCOL,
    SUMMARY,
    BadFrame,
    Frames,
    frame,
    framed,
    step_address,
)
from trellis.ipc.sockets import peer_is_ours

HELLO_SECONDS = 2.0
PLAIN, REFUSED = 2, 3  # members of an event
# What Triton answers an error of such a code with.
STATUS = {
    "INVALID_ARG": HTTPStatus.BAD_REQUEST,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "INTERNAL": HTTPStatus.INTERNAL_SERVER_ERROR,
}

Event = list[Any]
log = logging.getLogger("trellis.gateway")


class StepExchange(Awaited):
    """One request, and the events that come for it."""

    def __init__(self, number: int, content_type: bytes, meter: Meter | None = None) -> None:
        """`meter`: what counts its chunks."""
        super().__init__()
        self.meter = Meter() if meter is None else meter
        self.number = number
        self.content_type = content_type  # of the answer
        self.status = 0
        self._events: deque[Event] = deque()
        self._ended = False

    async def head(self) -> None:
        """Wait for the first event. Raises TritonLost, or an interruption."""
        while not self._events:
            await self._more()
        first = self._events[0]
        self.status = STATUS.get(first[2], 500) if len(first) == REFUSED else 200

    async def whole(self, _most: int) -> Event:
        """The one event of an answer that comes in one piece. Raises as `head` does."""
        while not self._ended:
            await self._more()
        return self._events.popleft()

    async def pass_to(self, sink: Sink) -> bool:
        """Give `sink` each event as it comes, without waking whoever waits here.

        Returns at the answer's end (True), or once `sink` takes no more (False); nothing is lost,
        and `pass_to` goes on. Raises as `head` does.
        """
        while True:
            while self._events:
                if not sink(self._events.popleft()):
                    return False
            if self._ended:
                return True
            if await self._left_to(sink):
                return False

    def take(self, event: Event) -> None:
        """An event has come."""
        plain = len(event) == PLAIN
        self._ended = not plain and (len(event) == REFUSED or event[2])
        if self._sink is None:
            self._keep(event, plain)
        elif self._sink(event):
            if not self._ended:
                return
        else:
            self._sink = None
        self._wake()

    def _keep(self, event: Event, plain: bool) -> None:
        """Keep it until it is asked for; what gathers leaves as one chunk."""
        if plain and self._events and len(self._events[-1]) == PLAIN:
            self._events[-1][1] += event[1]
        else:
            self._events.append(event)


class StepChannel(asyncio.Protocol):
    """The connection to one model."""

    transport: asyncio.Transport

    def __init__(self, spent: Callable[[float], None] = lambda _: None) -> None:
        """`spent` is told the seconds that a step's events took here."""
        self._spent = spent
        self._stepped = 0.0  # when the step before came, by time.monotonic
        self.version = ""  # of the model
        self.no_guides = ""  # why its engine follows none
        self.lost = False
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._frames = Frames()
        self._numbers = itertools.count(1)
        self._exchanges: dict[int, StepExchange] = {}

    def open(self, body: bytes, content_type: bytes, meter: Meter | None = None) -> StepExchange:
        """Ask; `body`: JSON of the model's tensors. Raises NotTaken."""
        if self.lost:
            raise NotTaken("the engine's socket is closed")
        exchange = StepExchange(next(self._numbers), content_type, meter)
        self._exchanges[exchange.number] = exchange
        self.transport.write(framed(b'["ask",%d,%b]' % (exchange.number, body)))
        return exchange

    def close(self, exchange: StepExchange, complete: bool) -> None:
        """Nothing more is wanted of this; `complete`: nothing more comes."""
        self._exchanges.pop(exchange.number, None)
        if not complete and not self.lost:
            self.transport.write(frame(LEAVE, exchange.number))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Some messages, or pieces of one."""
        try:
            for message in self._frames.feed(data):
                self._take(message)
        except BadFrame as error:
            log.error("hanging up on an engine whose step socket gave no message: %s", error)
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Closed, by either side."""
        self.lost = True
        if not self.greeted.done():
            self.greeted.set_exception(TritonLost("the engine's socket was closed"))
        for exchange in list(self._exchanges.values()):
            exchange.interrupt(TritonLost("the engine closed the connection"))

    def _take(self, message: list[Any]) -> None:
        if message[0] == EVENTS:
            self._step(message[1])
        elif message[0] == HELLO and message[1].get("protocol") == PROTOCOL:
            self.version = message[1]["version"]
            self.no_guides = message[1].get("no_guides", "")
            if not self.greeted.done():
                self.greeted.set_result(None)
        else:
            raise BadFrame(f"not known: {str(message)[:64]}")

    def _step(self, events: list[Event]) -> None:
        """Give each event of a step to its exchange, and count it.

        Most sequences had a chunk in the step before: the time since then is the same for all.
        """
        now, before = time.monotonic(), self._stepped
        bucket = bucket_of(now - before)
        for event in events:
            exchange = self._exchanges.get(event[0])
            if exchange is None:
                continue
            if len(event) != REFUSED:
                meter = exchange.meter
                if meter.last_at == before and before:
                    meter.gaps[bucket] += 1
                    meter.last_at = now
                    meter.tokens += len(event[1])
                else:
                    meter.chunk(len(event[1]), now)
                if len(event) != PLAIN and SUMMARY in event[4]:
                    meter.ended(event[4][SUMMARY])
            exchange.take(event)
        self._stepped = now
        self._spent(time.monotonic() - now)


class StepChannels:
    """The connections to all models that were asked in this way."""

    def __init__(
        self, server_pid: int, spent: Callable[[str, float], None] = lambda *_: None
    ) -> None:
        """`server_pid`: of the process tritonserver.

        `spent` is told a model, and the seconds that a step's events took here.
        """
        self.server_pid = server_pid
        self._spent = spent
        self._channels: dict[str, StepChannel] = {}
        self._connecting = asyncio.Lock()

    async def find(self, model: str) -> StepChannel | None:
        """The connection to a model, made if there is none; None where nobody listens."""
        channel = self._channels.get(model)
        if channel is not None and not channel.lost:
            return channel
        async with self._connecting:
            channel = self._channels.get(model)
            if channel is None or channel.lost:
                made = await self._connect(model)
                if made is None:
                    return None
                self._channels[model] = channel = made
            return channel

    async def lost(self) -> list[str]:
        """The models whose connection is lost, and cannot be made again."""
        names = [name for name, channel in self._channels.items() if channel.lost]
        return [name for name in names if await self.find(name) is None]

    def forget(self, model: str) -> None:
        """It is not served any more."""
        self._channels.pop(model, None)

    def close(self) -> None:
        """Hang up."""
        for channel in self._channels.values():
            channel.transport.abort()
        self._channels.clear()

    async def _connect(self, model: str) -> StepChannel | None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.setblocking(False)
        try:
            made.connect(step_address(model, self.server_pid))
            if not peer_is_ours(made):
                raise OSError("another user's process")
            loop, spent = asyncio.get_running_loop(), partial(self._spent, model_of(model))
            _, channel = await loop.create_connection(lambda: StepChannel(spent), sock=made)
        except OSError:
            made.close()
            return None
        try:
            await asyncio.wait_for(channel.greeted, HELLO_SECONDS)
        except (TritonLost, asyncio.TimeoutError):
            channel.transport.abort()
            return None
        return channel
