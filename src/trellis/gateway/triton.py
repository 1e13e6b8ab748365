# SPDX-License-Identifier: Apache-2.0
"""A client of Triton's HTTP port: loopback, trusted, HTTP/1.1, connections kept for a moment.

What is sent is written here: a path that the gateway knows, headers of our own, a body that was
checked. An answer is read piece by piece (`Exchange.read`) or whole (`Triton.ask`).
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import httptools
from httptools.parser.errors import HttpParserError

from trellis.errors import TrellisError
from trellis.gateway.awaited import Awaited, Sink
from trellis.gateway.deadlines import within
from trellis.gateway.limits import Limits
from trellis.gateway.refusals import (
    JSON,
    Headers,
    Refusal,
    cut_off,
    too_large,
    too_late,
    unreachable,
)

KEPT = 64
MAX_PENDING_BYTES = 262_144  # of an answer that is not read: then Triton waits


class TritonLost(TrellisError):
    """Triton closed a connection, sent what is no HTTP, or answered too late or too much."""

    def __init__(self, why: str, refusal: Refusal | None = None) -> None:
        """`refusal`: what a client is told that has nothing of its answer yet; None: of the end."""
        super().__init__(why)
        self.refusal = refusal or cut_off()


class NotTaken(TritonLost):
    """No connection was taken."""

    def __init__(self, why: str) -> None:
        super().__init__(why, unreachable())


class CutOff(TritonLost):
    """This server was stopped before the answer was complete."""

    def __init__(self, why: str) -> None:
        super().__init__(why, Refusal(503, why, close=True))


class ClientGone(TrellisError):
    """Whoever asked has left."""


class Reply(NamedTuple):
    """A whole answer; the connection that it came by may be in use again."""

    status: int
    content_type: bytes
    body: bytes


class Exchange(Awaited, asyncio.Protocol):
    """One connection to Triton, and the answer that comes by it."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        super().__init__()
        self._parser: Any = httptools.HttpResponseParser(self)
        self._done: Callable[[Exchange], None] | None = None  # nobody reads: who wants its end
        self._lost = self._paused = False
        self.used = False  # by an earlier request
        self.idle_since = 0.0
        self._begin()

    def _begin(self) -> None:
        self._parts: list[bytes] = []
        self._pending = 0
        self._headed = self._ended = False
        self.started = False  # whether anything of the answer has come
        self.content_type = b""
        self.status = 0

    # Asking.

    def send(self, method: str, path: str, headers: Headers, body: bytes) -> None:
        """Write a request."""
        self._begin()
        lines = [f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode()]
        lines += [b"%s: %s\r\n" % pair for pair in headers]
        if body or method == "POST":
            lines.append(b"Content-Length: %d\r\n" % len(body))
        self.transport.write(b"".join([*lines, b"\r\n", body]))

    async def head(self) -> None:
        """Wait for status and headers. Raises TritonLost, or an interruption."""
        while not self._headed:
            await self._more()

    async def read(self) -> bytes:
        """What has come of the body; b"" at its end. Raises TritonLost, or an interruption."""
        while not self._parts:
            if self._ended:
                return b""
            await self._more()
        data = self._take()
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        return data

    def _take(self) -> bytes:
        """What has come and was not read yet."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._pending = 0
        return data

    async def whole(self, most: int) -> bytes:
        """The rest of the body. Raises TritonLost, beyond `most` bytes, too."""
        parts, size = [], 0
        while data := await self.read():
            parts.append(data)
            size += len(data)
            if size > most:
                raise TritonLost(f"an answer of more than {most} bytes", too_large(most))
        return b"".join(parts)

    async def pass_to(self, sink: Sink) -> bool:
        """Give `sink` each piece of the body as it comes, without waking whoever waits here.

        Returns at the body's end (True), or once `sink` takes no more (False); nothing is lost,
        and `read` or `pass_to` goes on. Raises TritonLost, or an interruption.
        """
        while True:
            if self._parts and not sink(await self.read()):
                return False
            if self._ended:
                return True
            if await self._left_to(sink):
                return False

    def _give(self) -> bool:
        """Whether the sink took what has come, so that nobody has to wake."""
        if self._sink is None or not self._parts or self._ended or self._lost:
            return False
        if self._sink(self._take()):
            return True
        self._sink = None
        return False

    async def _more(self) -> None:
        """Wait for more. Raises TritonLost, or an interruption."""
        if self._lost and self._interruption is None:
            raise TritonLost("Triton closed the connection")
        await super()._more()

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        free = self._interruption is None  # a client that left must not end another's request
        return free and self._ended and not self._lost and not self.transport.is_closing()

    def drain(self, done: "Callable[[Exchange], None]") -> None:
        """Throw the rest of the answer away, then close, and call `done`."""
        self._parts.clear()
        self._done = done
        if self._ended or self._lost:
            self.close()
            asyncio.get_running_loop().call_soon(done, self)
        elif self._paused:
            self._paused = False
            self.transport.resume_reading()

    def close(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        self.started = True
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._lost = True
            self.transport.abort()
        if self._done is not None:
            if self._ended or self._lost:
                self.transport.abort()
            return
        if self._give():
            return
        self._wake()
        if self._pending > MAX_PENDING_BYTES and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Closed, by either side."""
        self._lost = True
        self._parser = None  # which holds this object
        self._wake()
        if self._done is not None:
            self._done(self)

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        if name.lower() == b"content-type":
            self.content_type = value

    def on_headers_complete(self) -> None:
        """The head is there; one below 200 only announces it."""
        self.status = self._parser.get_status_code()
        self._headed = self.status >= 200

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._done is None:
            self._parts.append(data)
            self._pending += len(data)

    def on_message_complete(self) -> None:
        """The end."""
        self._ended = self._headed
        self._lost |= self._ended and not self._parser.should_keep_alive()


class Triton:
    """Connections to one server."""

    def __init__(self, port: int, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self._port = port
        self._limits = limits
        self._loop = loop
        self._kept: list[Exchange] = []

    async def open(
        self, method: str, path: str, body: bytes = b"", headers: Headers | None = None
    ) -> Exchange:
        """An exchange whose request is sent. Raises NotTaken."""
        exchange = await self._connect()
        made = [(b"Content-Type", JSON)] if headers is None and body else headers or []
        exchange.send(method, path, made, body)
        return exchange

    async def _connect(self) -> Exchange:
        while self._kept:
            exchange = self._kept.pop()
            if exchange.reusable:
                exchange.used = True
                return exchange
            exchange.close()
        try:
            _, made = await self._loop.create_connection(Exchange, "127.0.0.1", self._port)
        except OSError as error:
            raise NotTaken(str(error)) from error
        return made

    def release(self, exchange: Exchange) -> None:
        """Its answer was read: keep it for the next request, or close it."""
        if exchange.reusable and len(self._kept) < KEPT and self._limits.kept_seconds:
            exchange.idle_since = self._loop.time()
            self._kept.append(exchange)
        else:
            exchange.close()

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Headers | None = None,
        seconds: float = 0.0,
    ) -> Reply:
        """A whole answer, under the limits of its size and time. Raises TritonLost."""
        asked, seconds = (
            self._ask(method, path, body, headers),
            seconds or self._limits.triton_seconds,
        )
        try:
            return await within(seconds, asked)
        except asyncio.TimeoutError as error:
            raise TritonLost(f"no answer in {seconds:.0f} s", too_late(seconds)) from error

    async def _ask(self, method: str, path: str, body: bytes, headers: Headers | None) -> Reply:
        exchange = await self.open(method, path, body, headers)
        try:
            await exchange.head()
            answer = await exchange.whole(self._limits.answer_bytes)
            reply = Reply(exchange.status, exchange.content_type, answer)
        except TritonLost:
            exchange.close()
            if exchange.used and not exchange.started:  # closed while it was kept
                return await self._ask(method, path, body, headers)
            raise
        except BaseException:
            exchange.close()
            raise
        self.release(exchange)
        return reply

    def sweep(self) -> None:
        """Close connections that were not used for a while; to be called now and then."""
        late = self._loop.time() - self._limits.kept_seconds
        old = [exchange for exchange in self._kept if exchange.idle_since < late]
        self._kept = [exchange for exchange in self._kept if exchange.idle_since >= late]
        for exchange in old:
            exchange.close()

    def close(self) -> None:
        """Close all that nobody uses."""
        for exchange in self._kept:
            exchange.close()
        self._kept.clear()
