"""One request to an engine: encoded beside what else goes on, stopped by who started it alone."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from support.fake_triton_http import FakeTriton
from support.gateway_in_process import (
    Client,
    InProcess,
    eventually,
    in_process,
    run_on_uvloop,
)
from support.gateway_wire import ENSEMBLE, post, stream
from trellis.gateway.fields import Field
from trellis.gateway.limits import LONG_BODY
from trellis.gateway.models import Model
from trellis.gateway.refusals import Refusal
from trellis.gateway.routes import Route
from trellis.gateway.state import State
from trellis.gateway.text_answers import Source
from trellis.gateway.triton import Exchange
from trellis.pipeline.decode import Detokenizer

SOURCE = Source("ensemble", "ensemble_ids", {}, frozenset(), False)
LONG = "x" * (LONG_BODY + 1)
KINDS = (("text_input", "TYPE_STRING"), ("stop", "TYPE_BOOL"), ("stream", "TYPE_BOOL"))


class Way(Route):
    """A tokenizer that takes as long as the test wants, and gives what it wants."""

    gives: Any = None
    begun: threading.Event
    go_on: threading.Event

    def is_long(self, asked: Any) -> bool:
        return bool(asked.size > LONG_BODY)

    def body(self, asked: Any, answer_type: bytes) -> Any:
        if self.is_long(asked):
            self.begun.set()
            assert self.go_on.wait(20)
        return self.gives


def run(body: Callable[[InProcess, State, Way, FakeTriton], Awaitable[None]]) -> None:
    """Run it with a gateway that knows one model."""

    async def main() -> None:
        tensors: list[dict[str, Any]] = [{"name": n, "data_type": t, "dims": [1]} for n, t in KINDS]
        fields = {tensor["name"]: Field.of(tensor, True) for tensor in tensors}
        way = Way("ensemble", Detokenizer(lambda _: "", lambda: None), SOURCE)  # type: ignore[arg-type, return-value]
        way.__dict__.update(begun=threading.Event(), go_on=threading.Event())
        model = Model("ensemble", fields=fields, known_by_id=True, route=way, is_ensemble=True)
        with FakeTriton() as triton:
            async with in_process(triton.port) as gateway:
                state = gateway.server.state
                assert state is not None
                state.models._known[ENSEMBLE] = (time.monotonic(), model)
                try:
                    await body(gateway, state, way, triton)
                finally:
                    way.go_on.set()

    run_on_uvloop(main())


async def said(client: Client, what: bytes) -> bytes:
    return await client.read(lambda data: what in data)


def test_others_are_answered_while_a_long_prompt_is_encoded() -> None:
    async def body(gateway: InProcess, state: State, way: Way, triton: FakeTriton) -> None:
        way.__dict__["gives"] = Refusal(400, "too long")
        slow, quick = await gateway.connect(), await gateway.connect()
        await slow.send(post({"text_input": LONG}))
        await eventually(way.begun.is_set)
        await quick.send(post({"text_input": "short"}))
        assert b"too long" in await said(quick, b"too long")
        assert len(state.in_flight) == 1
        way.go_on.set()
        assert b"too long" in await said(slow, b"too long")
        assert len(state.in_flight) == 0
        assert triton.requests == []

    run(body)


def test_a_client_that_leaves_meanwhile_leaves_nothing() -> None:
    async def body(gateway: InProcess, state: State, way: Way, triton: FakeTriton) -> None:
        client = await gateway.connect()
        await client.send(stream({"text_input": LONG}))
        await eventually(way.begun.is_set)
        assert len(state.in_flight) == 1
        client.close()
        await eventually(lambda: not gateway.connections)
        way.go_on.set()
        await eventually(lambda: len(state.in_flight) == 0)
        await asyncio.sleep(0.2)
        if triton.streams:  # it was begun, and is stopped at once
            await eventually(lambda: triton.stops != [])

    run(body)


def test_a_tokenizer_that_raises_at_the_start_of_an_answer_is_that_requests_alone() -> None:
    async def body(gateway: InProcess, state: State, way: Way, triton: FakeTriton) -> None:
        def raises() -> Any:
            raise ValueError("no table")

        way.__dict__["texts"] = Detokenizer(lambda _: "", raises)
        client = await gateway.connect()
        for _ in range(2):
            await client.send(post({"text_input": "short"}))
            data = await said(client, b"no table")
            assert data.startswith(b"HTTP/1.1 500 ")
            assert b"the tokens could not be decoded: no table" in data
        assert len(state.in_flight) == 0

    run(body)


def test_an_answer_that_triton_breaks_off_ends_with_an_error() -> None:
    async def body(gateway: InProcess, state: State, way: Way, triton: FakeTriton) -> None:
        state.models._known.clear()  # asks the ensemble itself
        client = await gateway.connect()
        await client.send(stream({"text_input": "a"}))
        await said(client, b"data: ")
        (exchange,) = state.upstreams
        assert isinstance(exchange, Exchange)
        exchange.close()
        data = await said(client, b"0\r\n\r\n")
        assert b'data: {"error": "Triton closed the connection"}\n\n' in data
        assert len(state.in_flight) == 0

    run(body)


def test_a_stop_is_of_the_same_key_or_connection_alone() -> None:
    async def body(gateway: InProcess, state: State, way: Way, triton: FakeTriton) -> None:
        state.models._known.clear()
        triton.configs["ensemble"]["input"].append(
            {"name": "stop", "data_type": "TYPE_BOOL", "dims": [1]}
        )
        own, other = "Trellis-Stop-Key: " + "a" * 16, "Trellis-Stop-Key: " + "b" * 16
        clients = [await gateway.connect() for _ in range(3)]
        for client, headers in zip(clients, ([own], [other], []), strict=True):
            await client.send(stream({"text_input": "a", "id": "7"}, *headers))
        await eventually(lambda: len(triton.streams) == 3)
        inner = {one.id for one in triton.streams}
        stopper = await gateway.connect()
        await stopper.send(post({"id": "7", "stop": True}))
        await said(stopper, b"{}")
        assert inner.isdisjoint(triton.stops)
        await stopper.send(post({"id": "7", "stop": True}, own))
        await said(stopper, b"{}")
        assert len(inner & set(triton.stops)) == 1
        await said(clients[0], b"0\r\n\r\n")
        assert sum(not one.stopped.is_set() for one in triton.streams) == 2

    run(body)
