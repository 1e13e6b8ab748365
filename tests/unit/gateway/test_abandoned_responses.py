"""Answers that nobody wants: read to their ends, so many at once, and each for so long."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

import pytest

from support.fake_triton_http import Host
from trellis.gateway import abandoned_responses as drains
from trellis.gateway import disconnects as notices
from trellis.gateway.abandoned_responses import AbandonedResponses
from trellis.gateway.disconnects import DisconnectNotices
from trellis.gateway.upstream import Upstream

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%s\r\n" % (1000, b"x" * 1000)
END = b"0\r\n\r\n"


class Server:
    """A server that writes what it is told to every connection, and counts those that are open."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.closed = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await reader.read()
        self.closed += 1
        writer.close()


class Nobody:
    """The client, as long as there is one."""

    transport: asyncio.Transport

    def answer_began(self) -> None: ...

    def answer_ended(self) -> None: ...

    def answer_failed(self) -> None: ...

    def upstream_lost(self) -> None: ...

    def pause_uploading(self, full: bool) -> None: ...


async def eventually(true: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not true():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), 10)


def with_server(
    body: Callable[
        [Server, Callable[[], Awaitable[Upstream]], AbandonedResponses], Awaitable[None]
    ],
) -> None:
    """Run it with a server, a way to connect to it, and drains."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = Server()
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]

        async def connect() -> Upstream:
            before = len(server.writers)
            _, upstream = await loop.create_connection(
                lambda: Upstream(Nobody()), "127.0.0.1", port
            )
            await eventually(lambda: len(server.writers) > before)
            return upstream

        drained = AbandonedResponses(loop)
        try:
            await body(server, connect, drained)
        finally:
            drained.close()
            await eventually(lambda: server.closed == len(server.writers))
            listening.close()

    asyncio.run(run())


def test_an_answer_is_read_to_its_end_and_the_connection_closed_then() -> None:
    async def body(
        server: Server, connect: Callable[[], Awaitable[Upstream]], drained: AbandonedResponses
    ) -> None:
        upstream = await connect()
        drained.add(upstream)
        writer = server.writers[0]
        writer.write(HEAD)
        for _ in range(5000):  # more than any buffer holds: it is read
            writer.write(CHUNK)
            await writer.drain()
        assert (len(drained), server.closed) == (1, 0)
        writer.write(END)
        await eventually(lambda: len(drained) == 0 and server.closed == 1)

    with_server(body)


def test_an_error_of_400_ends_it_too() -> None:
    async def body(
        server: Server, connect: Callable[[], Awaitable[Upstream]], drained: AbandonedResponses
    ) -> None:
        drained.add(await connect())
        error = json.dumps({"error": "the client cancelled the request"}).encode()
        server.writers[0].write(
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(error), error)
        )
        await eventually(lambda: len(drained) == 0 and server.closed == 1)

    with_server(body)


@pytest.mark.parametrize("said", [b"", HEAD + CHUNK])
def test_one_that_does_not_end_is_cut_off(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(drains, "DRAIN_SECONDS", 0.3)

    async def body(
        server: Server, connect: Callable[[], Awaitable[Upstream]], drained: AbandonedResponses
    ) -> None:
        drained.add(await connect())
        server.writers[0].write(said)
        await asyncio.sleep(0.1)
        assert (len(drained), server.closed) == (1, 0)
        await eventually(lambda: len(drained) == 0 and server.closed == 1)

    with_server(body)


def test_no_more_than_so_many_are_read_the_oldest_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drains, "MAX_DRAINS", 3)

    async def body(
        server: Server, connect: Callable[[], Awaitable[Upstream]], drained: AbandonedResponses
    ) -> None:
        upstreams = [await connect() for _ in range(5)]
        for number, upstream in enumerate(upstreams):
            drained.add(upstream)
            assert len(drained) == min(number + 1, 3)
        await eventually(lambda: server.closed == 2)
        assert [up.transport.is_closing() for up in upstreams] == [True, True, False, False, False]

    with_server(body)


def test_a_server_that_closes_or_sends_what_is_no_http_ends_it() -> None:
    async def body(
        server: Server, connect: Callable[[], Awaitable[Upstream]], drained: AbandonedResponses
    ) -> None:
        drained.add(await connect())
        drained.add(await connect())
        server.writers[0].close()
        server.writers[1].write(b"what?\r\n\r\n")
        await eventually(lambda: len(drained) == 0)

    with_server(body)


def test_a_client_is_said_to_be_gone_for_as_long_as_its_answer_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drains, "DRAIN_SECONDS", 0.5)
    monkeypatch.setattr(notices, "AGAIN_SECONDS", 0.1)
    host = Host()

    async def body(
        server: Server, connect: Callable[[], Awaitable[Upstream]], drained: AbandonedResponses
    ) -> None:
        told = DisconnectNotices(host.pid, drained, asyncio.get_running_loop())
        drained.add(await connect(), "ends")
        drained.add(await connect(), "goes-on")
        drained.add(await connect())  # an engine that is stopped by id
        told.add("ends")
        told.add("goes-on")
        with host.bound() as listener:
            await asyncio.sleep(0.25)
            assert _heard(listener)[:2] == ["ends", "goes-on"]
            server.writers[0].write(HEAD + END)
            await eventually(lambda: len(drained) == 2)
            _heard(listener)
            await asyncio.sleep(0.25)
            assert set(_heard(listener)) == {"goes-on"}
            await eventually(lambda: len(drained) == 0)
            _heard(listener)
            await asyncio.sleep(0.3)
            assert _heard(listener) == []
            told.add("last")
            told.close()
            assert _heard(listener) == ["last"]

    with_server(body)


def _heard(listener: socket.socket) -> list[str]:
    """The tokens of every datagram that waits."""
    listener.setblocking(False)
    tokens: list[str] = []
    try:
        while True:
            tokens += listener.recv(8192).decode().split()[1:]
    except BlockingIOError:
        return tokens
