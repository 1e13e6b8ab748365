"""A long prompt on its way to the engine: encoded by a thread, while the gateway goes on."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.gateway_wire import post
from trellis.gateway.connection import Connection
from trellis.gateway.fields import Field
from trellis.gateway.models import Model
from trellis.gateway.replies import Refusal
from trellis.gateway.routes import Route
from trellis.gateway.settings import LONG_BODY
from trellis.gateway.state import State
from trellis.gateway.text_answers import Source
from trellis.pipeline.decode import Detokenizer
from trellis.server.gateway_settings import GatewaySettings

PATH = "/v2/models/ensemble"
SOURCE = Source("ensemble", "ensemble_ids", {}, frozenset(), False)
LONG = "x" * (LONG_BODY + 1)


class Way(Route):
    """A tokenizer that takes as long as the test wants, and gives what it wants."""

    gives: Any = None
    begun: threading.Event
    go_on: threading.Event

    def is_long(self, asked: Any) -> bool:
        return len(asked.body) > LONG_BODY

    def body(self, asked: Any, token: str, answer_type: bytes) -> Any:
        if self.is_long(asked):
            self.begun.set()
            assert self.go_on.wait(20)
        return self.gives


class Transport:
    """What the client gets."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def write_eof(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = pause_reading = resume_reading = close


@pytest.fixture
def state() -> Iterator[State]:
    """A gateway before no Triton, which knows one model."""
    loop = asyncio.new_event_loop()
    made = State(GatewaySettings("127.0.0.1", 1, 1, 1, 1.0), loop)
    tensors: list[dict[str, Any]] = [{"name": n, "data_type": t, "dims": [1]} for n, t in KINDS]
    fields = {tensor["name"]: Field.of(tensor, True) for tensor in tensors}
    way = Way(Detokenizer(lambda _: "", lambda: None), SOURCE)  # type: ignore[arg-type, return-value]
    way.__dict__.update(begun=threading.Event(), go_on=threading.Event())
    made.models._known[PATH] = (time.monotonic(), Model("ensemble", fields, True, way, True))
    yield made
    way.go_on.set()
    made.encoders.shutdown()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


KINDS = (("text_input", "TYPE_STRING"), ("stop", "TYPE_BOOL"))


def way_of(state: State) -> Way:
    way = state.models._known[PATH][1].route
    assert isinstance(way, Way)
    return way


def connected(state: State) -> tuple[Connection, Transport]:
    client, transport = Connection(state), Transport()
    client.connection_made(transport)  # type: ignore[arg-type]
    return client, transport


def asked(text: str) -> bytes:
    return post({"text_input": text, "id": "7"}, target=f"{PATH}/generate")


def turn(state: State, until: Any) -> None:
    async def wait() -> None:
        while not until():
            await asyncio.sleep(0.005)

    state.loop.run_until_complete(asyncio.wait_for(wait(), 20))


def test_others_are_answered_meanwhile_and_what_it_says_comes_then(state: State) -> None:
    way = way_of(state)
    way.__dict__["gives"] = Refusal(400, "too long")
    (first, slow), (second, quick) = connected(state), connected(state)
    state.loop.call_soon(first.data_received, asked(LONG))
    turn(state, way.begun.is_set)
    second.data_received(asked("short"))
    assert b"too long" in quick.written
    assert not slow.written
    way.go_on.set()
    turn(state, lambda: b"too long" in slow.written)
    assert not state.ids._used


def test_a_client_that_leaves_meanwhile_leaves_nothing(state: State) -> None:
    way = way_of(state)
    client, transport = connected(state)
    state.loop.call_soon(client.data_received, asked(LONG))
    turn(state, way.begun.is_set)
    assert state.ids._used == {"7"}
    client.connection_lost(None)
    assert not state.ids._used
    way.go_on.set()
    turn(state, lambda: client._task is None)
    assert not transport.written


def test_a_tokenizer_that_raises_at_the_start_of_an_answer_is_that_requests_alone(
    state: State,
) -> None:
    def raises() -> Any:
        raise ValueError("no table")

    way = way_of(state)
    way.__dict__["texts"] = Detokenizer(lambda _: "", raises)
    client, transport = connected(state)
    for _ in range(2):
        client.data_received(asked("short"))
    assert transport.written.count(b"the tokens could not be decoded: no table") == 2
    assert not state.ids._used
