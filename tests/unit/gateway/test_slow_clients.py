"""Clients that read slowly, or not at all: nothing piles up for them, and nothing is lost."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from support.fake_triton_http import FakeTriton
from support.gateway_wire import get, stream
from trellis.gateway import connection
from trellis.gateway.connection import Connection
from trellis.gateway.replies import Refusal
from trellis.gateway.state import State
from trellis.server.gateway_settings import GatewaySettings

SMALL = 4096  # bytes of a socket's buffers, so that a client is soon behind
LARGE = b"x" * 50_000  # more than they hold, and less than makes Triton wait
Run = Callable[[Coroutine[None, None, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on either loop."""
    module = pytest.importorskip(request.param)

    def run_on(body: Coroutine[None, None, None]) -> None:
        loop = module.new_event_loop()
        try:
            loop.run_until_complete(body)
        finally:
            loop.close()

    return run_on


class Client:
    """One that reads when it is told to, and the gateway's side of it."""

    def __init__(self, client: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = client
        self._loop = loop
        self.front: Connection

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)

    def half_close(self) -> None:
        """Send no more."""
        self._socket.shutdown(socket.SHUT_WR)

    async def read(self, until: Callable[[bytes], bool] = lambda _: False) -> bytes:
        """What comes, to the end or as far as wanted."""

        async def read() -> bytes:
            data = b""
            while (more := await self._loop.sock_recv(self._socket, 65536)) and not until(more):
                data += more
            return data

        return await asyncio.wait_for(read(), 20)

    @property
    def unsent(self) -> int:
        """Bytes that wait in the gateway for this client."""
        return self.front.transport.get_write_buffer_size()


@asynccontextmanager
async def front(triton: FakeTriton) -> AsyncIterator[tuple[State, Client]]:
    """A gateway in this process, and a client of it."""
    loop = asyncio.get_running_loop()
    state = State(GatewaySettings("127.0.0.1", 0, triton.port, os.getpid(), 1.0), loop)
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0)
    with socket.socket() as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        end.setblocking(False)
        client = Client(end, loop)
        await loop.sock_connect(end, server.sockets[0].getsockname())
        await eventually(lambda: bool(state.connections))
        (served,) = state.connections
        assert isinstance(served, Connection)
        client.front = served
        client.front.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL
        )
        try:
            yield state, client
        finally:
            client.front.transport.abort()
            server.close()
            await asyncio.sleep(0.05)
            state.drains.close()


async def eventually(true: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not true():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), 10)


async def steady(number: Callable[[], int]) -> None:
    """Until it has not changed for a while."""

    async def wait() -> None:
        before = -1
        while before != (before := number()):
            await asyncio.sleep(0.3)

    await asyncio.wait_for(wait(), 20)


def test_what_follows_an_answer_that_failed_waits_for_a_slow_client_too(run: Run) -> None:
    async def body() -> None:
        with FakeTriton() as triton:
            triton.gap, triton.times = 0.001, 20_000
            async with front(triton) as (_, client):
                await client.send(stream({"text_input": "a"}) + stream({"text_input": "b"}))
                await eventually(lambda: bool(triton.streams))
                await steady(lambda: triton.streams[0].sent)
                client.front.answer_failed()
                await eventually(lambda: len(triton.streams) == 2)
                behind = client.unsent
                await steady(lambda: min(triton.streams[1].sent, 100_000_000))
                assert client.unsent <= behind < 1_000_000
                await client.read(lambda more: b"bbb" in more)  # it goes on as it is read

    run(body())


def test_an_answer_before_a_close_is_read_to_its_end_however_slowly(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.2)

    async def body() -> None:
        with FakeTriton() as triton:
            triton.large = LARGE
            async with front(triton) as (_, client):
                await client.send(get("/large", "Connection: close"))
                await eventually(lambda: client.unsent > 0)
                await asyncio.sleep(1)
                assert client.unsent > 0
                assert (await client.read()).endswith(triton.large)

    run(body())


def test_who_never_reads_an_answer_before_a_close_is_given_up(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(connection, "STALL_SECONDS", 0.3)

    async def body() -> None:
        with FakeTriton() as triton:
            triton.large = LARGE
            async with front(triton) as (state, client):
                await client.send(get("/large", "Connection: close"))
                await eventually(lambda: client.unsent > 0)
                await eventually(lambda: not state.connections)

    run(body())


@pytest.mark.parametrize("how", ["refused", "half-closed"])
def test_a_connection_that_is_being_closed_can_be_given_up(how: str, run: Run) -> None:
    async def body() -> None:
        with FakeTriton() as triton:
            triton.large = LARGE
            async with front(triton) as (state, client):
                if how == "refused":
                    await client.send(b"no HTTP\r\n\r\n")
                    await client.read()
                else:
                    await client.send(get("/large"))
                    client.half_close()
                    await eventually(lambda: client.unsent > 0)
                    await asyncio.sleep(0.1)
                client.front.give_up(Refusal(408, "it took too long"))
                await eventually(lambda: not state.connections)

    run(body())
