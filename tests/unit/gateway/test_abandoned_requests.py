"""Answers that nobody wants: read to their ends, so many at once, and each for so long."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

import pytest

from support.fake_triton_http import Host
from support.gateway_in_process import eventually
from trellis.gateway import abandoned_requests as module
from trellis.gateway.abandoned_requests import AbandonedClient, AbandonedRequests
from trellis.gateway.limits import Limits
from trellis.gateway.triton import Exchange, Triton

LIMITS = Limits()
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%s\r\n" % (1000, b"x" * 1000)
END = b"0\r\n\r\n"

ENGINE = "tensorrt_llm"
NOBODY = AbandonedClient("x", ("nobody",))


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


Open = Callable[[], Awaitable[Exchange]]
Body = Callable[[Server, Open, AbandonedRequests], Awaitable[None]]


def with_server(body: Body, limits: Limits = LIMITS, pid: int = 1, closes: bool = True) -> None:
    """Run it with a server, a way to ask it, and the requests that are abandoned."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = Server()
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        triton = Triton(listening.sockets[0].getsockname()[1], limits, loop)

        async def ask() -> Exchange:
            before = len(server.writers)
            exchange = await triton.open("GET", "/")
            await eventually(lambda: len(server.writers) > before)
            return exchange

        abandoned = AbandonedRequests(triton, pid, limits, loop)
        try:
            await body(server, ask, abandoned)
        finally:
            if closes:
                await abandoned.close()
            await eventually(lambda: server.closed == len(server.writers))
            listening.close()

    asyncio.run(run())


def test_an_answer_is_read_to_its_end_and_the_connection_closed_then() -> None:
    async def body(server: Server, ask: Open, abandoned: AbandonedRequests) -> None:
        exchange = await ask()
        abandoned.add(exchange, NOBODY)
        writer = server.writers[0]
        writer.write(HEAD)
        for _ in range(5000):  # more than any buffer holds: it is read
            writer.write(CHUNK)
            await writer.drain()
        assert (len(abandoned), server.closed) == (1, 0)
        writer.write(END)
        await eventually(lambda: len(abandoned) == 0 and server.closed == 1)

    with_server(body)


def test_an_error_of_400_ends_it_too() -> None:
    async def body(server: Server, ask: Open, abandoned: AbandonedRequests) -> None:
        abandoned.add(await ask(), NOBODY)
        error = json.dumps({"error": "the client cancelled the request"}).encode()
        server.writers[0].write(
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(error), error)
        )
        await eventually(lambda: len(abandoned) == 0 and server.closed == 1)

    with_server(body)


@pytest.mark.parametrize("said", [b"", HEAD + CHUNK])
def test_one_that_does_not_end_is_cut_off(said: bytes) -> None:
    async def body(server: Server, ask: Open, abandoned: AbandonedRequests) -> None:
        abandoned.add(await ask(), NOBODY)
        server.writers[0].write(said)
        await asyncio.sleep(0.1)
        assert (len(abandoned), server.closed) == (1, 0)
        await eventually(lambda: len(abandoned) == 0 and server.closed == 1)

    with_server(body, Limits(abandoned_seconds=0.3))


def test_no_more_than_so_many_are_read_the_oldest_is_cut_off() -> None:
    async def body(server: Server, ask: Open, abandoned: AbandonedRequests) -> None:
        exchanges = [await ask() for _ in range(5)]
        for number, exchange in enumerate(exchanges):
            abandoned.add(exchange, NOBODY)
            assert len(abandoned) == min(number + 1, 3)
        await eventually(lambda: server.closed == 2)
        assert [one.transport.is_closing() for one in exchanges] == [
            True,
            True,
            False,
            False,
            False,
        ]

    with_server(body, Limits(abandoned=3))


def test_a_server_that_closes_or_sends_what_is_no_http_ends_it() -> None:
    async def body(server: Server, ask: Open, abandoned: AbandonedRequests) -> None:
        abandoned.add(await ask(), NOBODY)
        abandoned.add(await ask(), NOBODY)
        server.writers[0].close()
        server.writers[1].write(b"what?\r\n\r\n")
        await eventually(lambda: len(abandoned) == 0)

    with_server(body)


def test_a_client_is_said_to_be_gone_for_as_long_as_its_answer_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.1)
    host = Host()

    async def body(server: Server, ask: Open, abandoned: AbandonedRequests) -> None:
        abandoned.add(await ask(), AbandonedClient("ends", (ENGINE,)))
        abandoned.add(await ask(), AbandonedClient("goes-on", (ENGINE,)))
        abandoned.add(
            await ask(), AbandonedClient("by-id", (ENGINE,), "/v2/models/ensemble/generate")
        )
        with host.bound() as listener:
            await asyncio.sleep(0.25)
            assert set(_heard(listener)) == {"ends", "goes-on"}
            server.writers[0].write(HEAD + END)
            await eventually(lambda: len(abandoned) == 2)
            _heard(listener)
            await asyncio.sleep(0.25)
            assert set(_heard(listener)) == {"goes-on"}
            await eventually(lambda: len(abandoned) == 0)
            _heard(listener)
            await asyncio.sleep(0.3)
            assert _heard(listener) == []
            abandoned.add(await ask(), AbandonedClient("last", (ENGINE,)))
            await abandoned.close()
            assert set(_heard(listener)) == {"last"}

    with_server(body, Limits(abandoned_seconds=0.5), host.pid, closes=False)


def _heard(listener: socket.socket) -> list[str]:
    """The tokens of every datagram that waits."""
    listener.setblocking(False)
    tokens: list[str] = []
    try:
        while True:
            tokens += listener.recv(8192).decode().split()[1:]
    except BlockingIOError:
        return tokens
