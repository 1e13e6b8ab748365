"""The gateway in the test's own process, its connections within reach."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from support.fake_triton_http import FakeTriton
from trellis.gateway.protocol import GatewayProtocol
from trellis.gateway.server import Server, listening_sockets
from trellis.server.gateway_settings import GatewaySettings

SMALL = 4096  # bytes of a socket's buffers, so that a client is soon behind


class InProcess:
    """A running server, and its port."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port

    @property
    def connections(self) -> list[GatewayProtocol]:
        """Those of clients."""
        return list(self.server.server_state.connections)

    async def connect(self, small: bool = False) -> "Client":
        """A new client. `small`: its buffers, and the gateway's for it."""
        before = set(self.connections)
        end = socket.socket()
        if small:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        end.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(end, ("127.0.0.1", self.port))
        await eventually(lambda: set(self.connections) - before != set())
        (served,) = set(self.connections) - before
        if small:
            inner = served.transport.get_extra_info("socket")
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        return Client(end, served)


class Client:
    """One that reads when it is told to, and the gateway's side of it."""

    def __init__(self, client: socket.socket, served: GatewayProtocol) -> None:
        self.socket = client
        self.served = served
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.socket, data)

    def half_close(self) -> None:
        """Send no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    async def read(
        self, until: Callable[[bytes], bool] = lambda _: False, seconds: float = 20
    ) -> bytes:
        """What comes, to the end or as far as wanted."""

        async def read() -> bytes:
            data = b""
            while not until(data) and (more := await self._loop.sock_recv(self.socket, 65536)):
                data += more
            return data

        return await asyncio.wait_for(read(), seconds)

    @property
    def unsent(self) -> int:
        """Bytes that wait in the gateway for this client."""
        return self.served.transport.get_write_buffer_size()


@asynccontextmanager
async def in_process(
    triton_port: int, limits: dict[str, float] | None = None, **more: Any
) -> AsyncIterator[InProcess]:
    """A gateway before that port. `more`: of GatewaySettings."""
    sockets = listening_sockets("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    settings = GatewaySettings(
        "127.0.0.1", port, triton_port, os.getpid(), 0.2, limits=limits or {}, **more
    )
    server = Server(settings)
    task = asyncio.get_running_loop().create_task(server.serve(sockets))
    await eventually(lambda: server.started or task.done())
    try:
        yield InProcess(server, port)
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 20)


def run(
    body: Callable[[InProcess, FakeTriton], Awaitable[None]],
    limits: dict[str, float] | None = None,
    gap: float = 0.02,
    by_id: bool = False,
    **settings: Any,
) -> None:
    """Run `body` beside a gateway before a fake Triton; `gap`, `by_id`: of FakeTriton."""

    async def main() -> None:
        with FakeTriton(by_id) as triton:
            triton.gap = gap
            async with in_process(triton.port, limits, **settings) as gateway:
                await body(gateway, triton)

    run_on_uvloop(main())


def run_on_uvloop(main: Coroutine[Any, Any, None]) -> None:
    """As the gateway runs."""
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()


async def eventually(true: Callable[[], bool], seconds: float = 10) -> None:
    """Fail unless it comes true in time."""

    async def wait() -> None:
        while not true():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), seconds)


async def steady(number: Callable[[], int]) -> None:
    """Until it has not changed for a while."""

    async def wait() -> None:
        before = -1
        while before != (before := number()):
            await asyncio.sleep(0.3)

    await asyncio.wait_for(wait(), 20)
