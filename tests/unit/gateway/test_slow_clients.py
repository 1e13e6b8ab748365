"""Clients that read slowly, or not at all: nothing piles up for them, and nothing is lost."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from support.fake_triton_http import FakeTriton
from support.gateway_in_process import eventually, in_process, steady
from support.gateway_wire import ENSEMBLE, get, stream

pytestmark = pytest.mark.slow
LARGE = {"parameters": {"x": {"string_value": "y" * 300_000}}}  # more than all buffers hold
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


def large(triton: FakeTriton) -> bytes:
    """What is asked for a long answer, which is there from now on."""
    triton.configs["ensemble"] |= LARGE
    return get(f"{ENSEMBLE}/config")


def test_a_stream_waits_in_triton_for_a_slow_client_and_nothing_is_lost(run: Run) -> None:
    async def body() -> None:
        with FakeTriton() as triton:
            triton.gap, triton.times = 0.001, 20_000
            async with in_process(triton.port) as gateway:
                client = await gateway.connect(small=True)
                await client.send(stream({"text_input": "a"}))
                await eventually(lambda: bool(triton.streams))
                await steady(lambda: triton.streams[0].sent)
                assert 0 < client.unsent < 1_000_000
                before = triton.streams[0].sent
                data = await client.read(lambda data: len(data) > before)
                assert data.count(b"a" * 20_000) > before // 20_100 - 2
                await eventually(lambda: triton.streams[0].sent > before)
                client.close()

    run(body())


def test_who_reads_nothing_is_given_up_alone_and_its_request_stopped(run: Run) -> None:
    async def body() -> None:
        with FakeTriton() as triton:
            triton.gap, triton.times = 0.01, 20_000
            async with in_process(triton.port, {"unread_seconds": 1.5}) as gateway:
                lazy, reader = await gateway.connect(small=True), await gateway.connect()
                await lazy.send(stream({"text_input": "a"}))
                await reader.send(stream({"text_input": "b"}))
                reading = asyncio.create_task(
                    reader.read(lambda data: data.endswith(b"0\r\n\r\n"), seconds=30)
                )
                await eventually(lambda: len(triton.streams) == 2)
                await eventually(lambda: lazy.served not in gateway.connections)
                assert gateway.server.state is not None
                assert len(gateway.server.state.abandoned) == 1
                next(one for one in triton.streams if one.piece == b"b").stopped.set()
                assert (await reading).endswith(b"0\r\n\r\n")
                reader.close()

    run(body())


def test_an_answer_before_a_close_is_read_to_its_end_however_slowly(run: Run) -> None:
    async def body() -> None:
        with FakeTriton() as triton:
            asked = large(triton).replace(
                b"Host: localhost", b"Host: localhost\r\nConnection: close"
            )
            async with in_process(triton.port, {"linger_seconds": 0.2}) as gateway:
                client = await gateway.connect(small=True)
                await client.send(asked)
                await eventually(lambda: client.unsent > 0)
                await asyncio.sleep(2.5)
                assert client.unsent > 0
                assert (await client.read()).endswith(b"y" * 1000 + b'"}}}')

    run(body())


@pytest.mark.parametrize("how", ["closed", "kept", "half-closed"])
def test_who_never_takes_an_answer_is_given_up(run: Run, how: str) -> None:
    async def body() -> None:
        with FakeTriton() as triton:
            asked = large(triton)
            if how == "closed":
                asked = asked.replace(b"Host: localhost", b"Host: localhost\r\nConnection: close")
            limits = {"linger_seconds": 0.1, "unread_seconds": 0.3}
            async with in_process(triton.port, limits) as gateway:
                client = await gateway.connect(small=True)
                await client.send(asked)
                if how == "half-closed":
                    client.half_close()
                await eventually(lambda: client.unsent > 0)
                await eventually(lambda: not gateway.connections)

    run(body())


def test_a_refusal_can_be_read_while_the_client_still_sends(run: Run) -> None:
    async def body() -> None:
        with FakeTriton() as triton:
            async with in_process(triton.port, {"linger_seconds": 0.5}) as gateway:
                client = await gateway.connect()
                await client.send(b"no HTTP\r\n\r\n")
                for _ in range(50):
                    await client.send(b"x" * 65_536)
                data = await client.read()
                assert data.startswith(b"HTTP/1.1 400 Bad Request\r\n")
                assert data.endswith(b'"}')
                await eventually(lambda: not gateway.connections)  # though it closes nothing

    run(body())


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (b"", "idle_seconds"),
        (get(f"{ENSEMBLE}/config"), "idle_seconds"),
        (b"GET /v2 HT", "head_seconds"),
        (
            b"POST /v2/models/ensemble/generate HTTP/1.1\r\nHost: localhost\r\nA: b\r\n",
            "head_seconds",
        ),
        (
            b"POST /v2/models/ensemble/generate HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 9\r\n\r\n{",
            "body_seconds",
        ),
        (
            b"POST /v2/models/ensemble/generate HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
            "body_seconds",
        ),
        (stream({"text_input": "a"}), "request_seconds"),
    ],
)
def test_what_takes_too_long_is_ended(run: Run, sent: bytes, seconds: str) -> None:
    async def body() -> None:
        with FakeTriton() as triton:
            limits: dict[str, float] = {seconds: 0.4, "linger_seconds": 0.1}
            async with in_process(triton.port, limits) as gateway:
                client = await gateway.connect()
                await client.send(sent)
                try:
                    data = await client.read()
                except ConnectionResetError:
                    data = b""
                assert (b" 408 " in data) == (seconds in ("head_seconds", "body_seconds"))
                await eventually(lambda: not gateway.connections)
                if seconds == "request_seconds":
                    assert gateway.server.state is not None
                    assert len(gateway.server.state.abandoned) == 1

    run(body())
