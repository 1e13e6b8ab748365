"""The gateway's end of the step socket, before a socket that a test scripts."""

import asyncio
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.fake_triton_http import FakeTriton
from support.gateway_in_process import InProcess, eventually, in_process, run_on_uvloop
from support.gateway_wire import get
from trellis.gateway.ids import RequestId
from trellis.gateway.refusals import EVENTS, JSON
from trellis.gateway.step_channel import StepChannel, StepChannels, StepExchange
from trellis.gateway.step_text import StepText
from trellis.gateway.text_answers import Source
from trellis.gateway.triton import ClientGone, TritonLost
from trellis.ipc.frames import PROTOCOL, Frames, frame, step_address
from trellis.pipeline.decode import Detokenizer

MODEL = "tensorrt_llm"
NAMES = {b"cum_log_probs": b"cum_log_probs", b"output_log_probs": b"logs"}
SOURCE = Source("ensemble", MODEL, NAMES, frozenset({b"stream_key"}), True)


class Letters:
    """A decoder of one letter a token."""

    def push(self, ids: list[int]) -> str:
        return "".join(chr(97 + token) for token in ids)

    def end(self) -> str:
        return "."


class Broken(Letters):
    def push(self, ids: list[int]) -> str:
        raise ValueError("no table")


def text(kind: bytes, decoder: type[Letters] = Letters, client: str = "") -> StepText:
    answer = StepText(SOURCE, "1", Detokenizer(str, decoder), RequestId("1f", client))
    answer.begin(200, kind)
    return answer


def test_events_become_the_ensembles_chunks() -> None:
    answer = text(EVENTS, client="mine")
    head = b'"id":"mine","model_name":"ensemble","model_version":"1",'
    sequence = b'"sequence_end":false,"sequence_id":0,"sequence_start":false,"text_output":'
    assert answer.feed([1, [0, 1]]) == b"data: {" + head + sequence + b'"ab"}\n\n'
    outputs = {"cum_log_probs": -1.5, "output_log_probs": [-0.5], "stream_key": 9, "other": 1}
    assert answer.feed([1, [2], True, 1, outputs]) == (
        b'data: {"cum_log_probs":-1.5,"id":"mine","logs":-0.5,"model_name":"ensemble",'
        b'"model_version":"1",' + sequence + b'"c"}\n\n'
    )
    assert (answer.end(), answer.success_of) == (b"", ("ensemble", MODEL))


def test_a_whole_answer_comes_at_its_end() -> None:
    answer = text(JSON)
    assert answer.feed([1, [0], True, 0, {}]) == b""
    assert answer.end().endswith(b'"text_output":"a."}')


@pytest.mark.parametrize("kind", [EVENTS, JSON])
def test_an_error_is_no_success(kind: bytes) -> None:
    answer = text(kind)
    made = answer.feed([1, 'the engine failed: "x"', "INTERNAL"]) + answer.end()
    assert b"""{"error":"in ensemble 'ensemble', the engine failed: \\"x\\""}""" in made
    assert answer.success_of == ()


def test_tokens_that_cannot_be_decoded_end_that_answer() -> None:
    whole, stream = text(JSON, Broken), text(EVENTS, Broken)
    whole.feed([1, [0], True, 0, {}])
    assert b"the tokens could not be decoded: no table" in whole.end()
    assert (whole.status, whole.success_of) == (400, ())
    assert b"no table" in stream.feed([1, [0]])
    assert stream.failed


@given(st.lists(st.lists(st.integers(0, 25), max_size=3), max_size=30), st.data())
def test_nothing_is_lost_however_often_a_client_is_behind(
    steps: list[list[int]], data: st.DataObject
) -> None:
    taken: list[Any] = []

    def sink(event: Any) -> bool:
        taken.append(event)
        return data.draw(st.booleans())

    async def run() -> None:
        exchange = StepExchange(1, EVENTS)

        async def read() -> None:
            while not await exchange.pass_to(sink):
                for _ in range(data.draw(st.integers(0, 3))):
                    await asyncio.sleep(0)

        reading = asyncio.create_task(read())
        for ids in steps:
            if data.draw(st.booleans()):
                await asyncio.sleep(0)
            exchange.take([1, list(ids)])
        exchange.take([1, [99], True, 0, {}])
        await reading

    asyncio.run(run())
    assert [i for event in taken for i in event[1]] == [i for ids in steps for i in ids] + [99]
    assert sum(len(event) > 2 for event in taken) == 1


class Model:
    """The model's end: takes connections, and does with each what the test says."""

    def __init__(self, greeting: bytes) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(step_address(MODEL, os.getpid()))
        self.listener.listen()
        self.clients: list[socket.socket] = []
        self.got: list[list[Any]] = []
        self.greeting = greeting
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.clients.append(client)
            client.sendall(self.greeting)
            threading.Thread(target=self._read, args=(client,), daemon=True).start()

    def _read(self, client: socket.socket) -> None:
        frames = Frames()
        try:
            while data := client.recv(65536):
                self.got += frames.feed(data)
        except OSError:
            pass

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for client in self.clients:
            client.shutdown(socket.SHUT_RDWR)
            client.close()


@contextmanager
def model(
    greeting: bytes = frame("hello", {"protocol": PROTOCOL, "version": "3"}),
) -> Iterator[Model]:
    made = Model(greeting)
    try:
        yield made
    finally:
        with suppress(OSError):
            made.close()


def run(body: Callable[[Model, StepChannels], Awaitable[None]], **more: Any) -> None:
    async def main() -> None:
        with model(**more) as made:
            channels = StepChannels(os.getpid())
            try:
                await body(made, channels)
            finally:
                channels.close()

    run_on_uvloop(main())


def test_many_requests_share_one_connection() -> None:
    async def body(made: Model, channels: StepChannels) -> None:
        found = await asyncio.gather(*(channels.find(MODEL) for _ in range(20)))
        assert len(made.clients) == 1
        channel = found[0]
        assert isinstance(channel, StepChannel)
        assert channel.version == "3"
        first, second = (channel.open(b'{"a":%d}' % at, EVENTS) for at in range(2))
        await eventually(lambda: len(made.got) == 2)
        assert made.got == [["ask", 1, {"a": 0}], ["ask", 2, {"a": 1}]]
        made.clients[0].sendall(frame("events", [[2, [5]], [1, "no", "UNAVAILABLE"], [9, [1]]]))
        await asyncio.gather(first.head(), second.head())
        assert (first.status, second.status) == (503, 200)
        assert await first.whole(1) == [1, "no", "UNAVAILABLE"]
        channel.close(first, complete=True)
        channel.close(second, complete=False)
        await eventually(lambda: len(made.got) == 3)
        assert made.got[2] == ["leave", 2]

    run(body)


def test_an_interruption_reaches_who_waits_and_who_comes_to_wait() -> None:
    async def body(made: Model, channels: StepChannels) -> None:
        channel = await channels.find(MODEL)
        assert channel is not None
        exchange = channel.open(b"{}", JSON)
        waiting = asyncio.create_task(exchange.head())
        await asyncio.sleep(0)
        exchange.interrupt(ClientGone())
        with pytest.raises(ClientGone):
            await waiting
        with pytest.raises(ClientGone):
            await exchange.whole(1)

    run(body)


@pytest.mark.parametrize("what", ["closed", "garbage", "unknown"])
def test_a_lost_socket_ends_what_is_in_flight(what: str, caplog: pytest.LogCaptureFixture) -> None:
    async def body(made: Model, channels: StepChannels) -> None:
        channel = await channels.find(MODEL)
        assert channel is not None
        exchange = channel.open(b"{}", JSON)
        if what == "closed":
            made.close()
        else:
            made.clients[0].sendall(b"\xff" * 9 if what == "garbage" else frame("dance"))
        with pytest.raises(TritonLost, match="the engine closed the connection"):
            await exchange.head()
        with pytest.raises(TritonLost):
            channel.open(b"{}", JSON)
        if what == "closed":
            assert await channels.find(MODEL) is None
            assert await channels.lost() == [MODEL]
            channels.forget(MODEL)
        assert await channels.lost() == []

    run(body)
    said = {"closed": "", "garbage": "a message of 4294967295 bytes", "unknown": "not known"}
    assert said[what] in caplog.text
    assert bool(caplog.text) == (what != "closed")


@pytest.mark.parametrize("greeting", [frame("hello", {"protocol": 2}), b"\x00\x00\x00\x01x"])
def test_another_protocol_is_not_spoken(greeting: bytes) -> None:
    async def body(made: Model, channels: StepChannels) -> None:
        assert await channels.find(MODEL) is None
        assert await channels.lost() == []

    run(body, greeting=greeting)


def test_readiness_fails_while_an_engines_socket_is_lost() -> None:
    async def ask(gateway: InProcess, path: str) -> tuple[int, bytes]:
        client = await gateway.connect()
        await client.send(get(path).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        answer = await client.read()
        client.close()
        return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]

    async def main() -> None:
        with FakeTriton() as triton, model() as made:
            triton.ready = True
            async with in_process(triton.port) as gateway:
                state = gateway.server.state
                assert state is not None
                paths = ("/v2/health/ready", "/v2/models/ensemble/ready")
                assert await state.steps.find(MODEL) is not None
                assert [(await ask(gateway, path))[0] for path in paths] == [200, 200]
                made.close()
                await eventually(lambda: state.steps._channels[MODEL].lost)
                for path in paths:
                    status, body = await ask(gateway, path)
                    assert (status, b"tensorrt_llm: its step socket" in body) == (503, True)
                triton.ready = False  # the model was unloaded: Triton says what is so
                assert (await ask(gateway, paths[0]))[0] != 503
                assert await state.steps.lost() == []

    run_on_uvloop(main())
