"""What one client may take: connections, bytes of a head, chunks, requests in line."""

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from support.fake_triton_http import FakeTriton
from support.gateway_in_process import Client, InProcess, eventually
from support.gateway_in_process import run as run_gateway
from support.gateway_wire import ENSEMBLE, get, post, stream
from trellis.gateway.protocol import BEGIN_SECONDS

CONFIG = get(f"{ENSEMBLE}/config")
Body = Callable[[InProcess, FakeTriton], Awaitable[None]]


def run(body: Body, **limits: float) -> None:
    run_gateway(body, limits, gap=0.05)


async def answered(client: Client, count: int = 1) -> bytes:
    """As many whole answers of 200 to CONFIG."""
    return await client.read(lambda data: data.count(b'{"step"') == count)


def test_the_connection_that_was_idle_for_longest_makes_room() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        clients = [await gateway.connect() for _ in range(4)]
        await clients[0].send(CONFIG)
        await answered(clients[0])  # the others have been idle for longer
        await clients[1].send(stream({"text_input": "a"}))
        await eventually(lambda: bool(triton.streams))
        late = await gateway.connect()
        await late.send(CONFIG)
        assert await answered(late)
        await eventually(lambda: len(gateway.connections) == 4)
        assert clients[2].served not in gateway.connections
        for client in (clients[0], clients[1], clients[3]):
            assert client.served in gateway.connections

    run(body, connections=4)


def test_heads_that_do_not_come_keep_nobody_out() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        slow = [await gateway.connect() for _ in range(4)]
        for client in slow:
            await client.send(b"GET /v2 HTTP/1.1\r\nHost: ")
        for _ in range(6):
            late = await gateway.connect()
            await late.send(CONFIG)
            assert await answered(late)
            late.close()

    run(body, connections=4)


def test_bodies_that_do_not_come_keep_nobody_out() -> None:
    """A head alone, with the length of a body, took a place for a minute."""

    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        slow = [await gateway.connect() for _ in range(4)]
        for client in slow:
            await client.send(
                post(b"", "Content-Length: 100").replace(b"Content-Length: 0\r\n", b"")
            )
        for _ in range(6):
            late = await gateway.connect()
            await late.send(CONFIG)
            assert await answered(late)
            late.close()

    run(body, connections=4)


def test_bodies_together_are_bounded_and_give_their_room_back() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        first = await gateway.connect()
        await first.send(stream({"text_input": "a" * 600}))
        await eventually(lambda: bool(triton.streams))
        second = await gateway.connect()
        await second.send(stream({"text_input": "a" * 600}))
        assert b"503" in await second.read(lambda data: b"try again" in data)
        first.close()
        state = gateway.server.state
        assert state is not None
        await eventually(lambda: state.bodies.taken == 0)
        third = await gateway.connect()
        await third.send(stream({"text_input": "a" * 600}))
        await eventually(lambda: len(triton.streams) == 2)

    run(body, bodies_bytes=1000)


def test_where_all_are_worked_for_a_new_connection_is_told_so() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        clients = [await gateway.connect() for _ in range(3)]
        for client in clients:
            await client.send(stream({"text_input": "a"}))
        await eventually(lambda: len(triton.streams) == 3)
        late = await gateway.connect()
        data = await late.read()
        assert data.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in data
        clients[0].close()
        await eventually(lambda: len(gateway.connections) < 4)

    run(body, connections=3)


def test_one_address_has_so_many_connections_and_no_more() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        clients = [await gateway.connect() for _ in range(3)]
        late = await gateway.connect()
        assert (await late.read()).startswith(b"HTTP/1.1 429 ")
        late.close()
        clients[0].close()
        await eventually(lambda: len(gateway.connections) == 2)
        again = await gateway.connect()
        await again.send(CONFIG)
        assert await answered(again)

    run(body, connections_per_address=3)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 5000,
        b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nA: " + b"y" * 5000,
        b"GET /v2 HTTP/1.1\r\n" + b"A: b\r\n" * 2000,
        b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 101 + b"\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_a_head_is_so_large_and_no_larger(head: bytes, size: int) -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        client = await gateway.connect()
        for at in range(0, min(len(head), 20 * size + 6000), size):
            await client.send(head[at : at + size])
        await client.send(b"y" * 4096)
        assert (await client.read()).startswith(b"HTTP/1.1 431 ")
        assert triton.requests == []

    run(body, head_bytes=4096)


@pytest.mark.parametrize("extension", [b"", b";a=b", b";" + b"x" * 900])
def test_a_body_in_tiny_chunks_is_refused(extension: bytes) -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        client = await gateway.connect()
        head = f"POST {ENSEMBLE}/generate HTTP/1.1\r\nHost: localhost\r\n"
        head += "Transfer-Encoding: chunked\r\n\r\n"
        await client.send(head.encode())
        chunk = b"2%b\r\n  \r\n" % extension
        for _ in range(30):
            await client.send(chunk * (8192 // len(chunk)))
        data = await client.read()
        assert data.startswith(b"HTTP/1.1 400 ")
        assert b"too many small chunks" in data

    run(body, body_framing_bytes=16_384)


def test_trailers_without_an_end_are_refused() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        client = await gateway.connect()
        head = f"POST {ENSEMBLE}/generate HTTP/1.1\r\nHost: localhost\r\n"
        head += "Transfer-Encoding: chunked\r\n\r\n"
        await client.send(head.encode() + b"1\r\n{\r\n0\r\n" + b"A: b\r\n" * 9000)
        assert (await client.read()).startswith(b"HTTP/1.1 4")

    run(body, body_framing_bytes=16_384)


async def send_for_ever(client: Client) -> None:
    while True:
        await client.send(b"x" * 65_536)
        await asyncio.sleep(0.01)


@pytest.mark.slow
def test_a_body_that_nobody_reads_ends_with_its_answer() -> None:
    """`POST /v2/health/live` with a body that goes on for ever."""

    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        for target in ("/v2/health/live", "/nothing", "/v2/models/none/generate"):
            client = await gateway.connect()
            head = (
                f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000000\r\n\r\n"
            )
            await client.send(head.encode())
            data = await client.read()
            assert data.split(b"\r\n")[0] in (
                b"HTTP/1.1 405 Method Not Allowed",
                b"HTTP/1.1 404 Not Found",
            )
            assert b"connection: close\r\n" in data
            sending = asyncio.create_task(send_for_ever(client))
            await eventually(sending.done)
            assert isinstance(sending.exception(), ConnectionError)
            client.close()

    run(body, linger_seconds=0.2)


def test_what_is_sent_ahead_waits_unread_and_is_answered_in_its_order() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        client = await gateway.connect(small=True)
        count, long = 400, get(f"{ENSEMBLE}/config", "A: " + "x" * 900)
        sending = asyncio.create_task(client.send(stream({"text_input": "a"}) + long * count))
        await eventually(lambda: bool(triton.streams))
        await asyncio.sleep(0.3)
        served = client.served
        assert len(served.pipeline) < 150
        assert len(served.ahead) < 16_384 + 262_144  # and what one read gives
        triton.streams[0].stopped.set()
        data = await client.read(lambda data: data.count(b'{"step"') == count, 60)
        assert data.count(b"HTTP/1.1 200 OK") == count + 1
        await sending

    run(body, ahead_bytes=16_384)


def test_a_client_that_sent_ahead_and_hangs_up_is_noticed() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        client = await gateway.connect()
        await client.send(stream({"text_input": "a"}) + post({"text_input": "b"}) * 20)
        await eventually(lambda: bool(triton.streams))
        client.close()
        await eventually(lambda: not gateway.connections)
        assert gateway.server.state is not None
        assert len(gateway.server.state.abandoned) == 1
        assert len(triton.streams) == 1

    run(body)


@pytest.mark.slow
def test_pipelined_nonsense_does_not_stop_the_streams_of_others() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        triton.gap = 0.01
        reader, hostile = await gateway.connect(), await gateway.connect()
        await reader.send(stream({"text_input": "a"}))
        await reader.read(lambda data: data.count(b"data: ") > 2)
        flood = asyncio.create_task(
            hostile.send(post(b"{", target=f"{ENSEMBLE}/generate") * 20_000)
        )
        drop = asyncio.create_task(hostile.read(lambda _: False, 60))
        longest, before = 0.0, time.monotonic()
        for _ in range(100):
            await reader.read(lambda data: b"data: " in data)
            longest, before = max(longest, time.monotonic() - before), time.monotonic()
        assert longest < 0.25
        for task in (flood, drop):
            task.cancel()
        hostile.close()

    run(body)


def test_the_last_answer_is_the_refusal_of_what_followed_it() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        client = await gateway.connect()
        await client.send(CONFIG + CONFIG + b"NONSENSE\r\n\r\n" + CONFIG)
        data = await client.read()
        assert data.count(b"HTTP/1.1 200 OK") == 2
        last = data[data.index(b"HTTP/1.1 400 Bad Request\r\n") :]
        assert b"connection: close\r\n" in last
        assert json.loads(last.partition(b"\r\n\r\n")[2])["error"]

    run(body)


def test_a_get_is_answered_to_who_is_done_with_sending() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        client = await gateway.connect()
        await client.send(CONFIG * 3)
        client.half_close()
        assert (await client.read()).count(b"HTTP/1.1 200 OK") == 3

    run(body)


def test_http_1_0_gets_streams_without_chunks() -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        client = await gateway.connect()
        await client.send(stream({"text_input": "a"}).replace(b"HTTP/1.1", b"HTTP/1.0"))
        await client.read(lambda data: data.count(b"data: ") > 2)
        triton.streams[0].stopped.set()
        data = await client.read()
        assert b"\r\n" not in data
        assert data.endswith(b"\n\n") or not data

    run(body)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("PUT /v1/models HTTP/1.1", 405),
        ("GET /v1/ HTTP/1.1", 400),
        ("GET /v1/models?x=1 HTTP/1.1\r\nUpgrade: h2c", 400),
        ("POST /tokenize HTTP/1.1\r\nTransfer-Encoding: gzip", 400),
    ],
)
def test_a_head_that_is_not_let_in_is_an_error_of_its_path_s_api(head: str, status: int) -> None:
    async def body(gateway: InProcess, triton: FakeTriton) -> None:
        client = await gateway.connect()
        await client.send(f"{head}\r\nHost: localhost\r\n\r\n".encode())
        answer = await client.read(lambda data: data.endswith(b"}"))
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"

    run(body)


def test_a_request_on_its_way_is_answered_as_the_server_stops() -> None:
    """Of a new connection, or a head that has begun; one that was idle is closed."""

    async def body(gateway: InProcess, _: FakeTriton) -> None:
        new, begun, idle, silent = [await gateway.connect() for _ in range(4)]
        await idle.send(CONFIG)
        await answered(idle)
        await begun.send(CONFIG[:20])
        await eventually(lambda: begun.served.in_head)
        gateway.server.handle_exit(signal.SIGTERM, None)
        assert await idle.read() == b""
        for client, sent in ((new, CONFIG), (begun, CONFIG[20:])):
            await client.send(sent)
            told = await client.read()
            assert told.startswith(b"HTTP/1.1 503 ")
            assert b"connection: close" in told.lower()
        begin = time.monotonic()
        assert await silent.read() == b""
        assert time.monotonic() - begin < 2 * BEGIN_SECONDS

    run(body)
