"""A gRPC stream in the gateway: what an engine's step socket gives, and what Triton does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import tritonclient.grpc as triton
from tritonclient.grpc.service_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)

from support.ensemble_model import ensemble_model
from trellis.gateway.access.grpc_requests import GrpcRequest, is_stop, read_request
from trellis.gateway.access.grpc_stream import RUNNING, UNSENT, GrpcStream
from trellis.gateway.access.grpc_tensors import EMPTY_FINAL, FINAL, read_tensors
from trellis.gateway.engine_requests import Written
from trellis.gateway.ids import RequestId, RequestsInFlight
from trellis.gateway.limits import Limits
from trellis.gateway.metrics.registry import Registry
from trellis.gateway.models import Model
from trellis.gateway.refusals import Refusal
from trellis.gateway.step_channel import StepExchange
from trellis.gateway.text_answers import Source
from trellis.gateway.triton import NotTaken, TritonLost
from trellis.grpc_client import request_inputs

SOURCE = Source("ensemble", "tensorrt_llm", {b"finish": b"finish_reason"}, frozenset(), True)


MODEL = ensemble_model()


class Letters:
    """Token 97 is "a"; 0 cannot be decoded."""

    def sequence(self, _: Any) -> "Letters":
        return self

    def add(self, ids: list[int], _ended: bool, _cut: int) -> str:
        if 0 in ids:
            raise ValueError("no token")
        return "".join(map(chr, ids))


class Channel:
    """A step socket's requests, and how each was closed."""

    version = "1"

    def __init__(self) -> None:
        self.asked: list[StepExchange] = []
        self.closed: list[bool] = []
        self.lost = False

    def open(self, _body: bytes, kind: bytes, meter: Any) -> StepExchange:
        if self.lost:
            raise NotTaken("the engine's socket is closed")
        self.asked.append(StepExchange(len(self.asked), kind, meter))
        return self.asked[-1]

    def close(self, _: StepExchange, complete: bool) -> None:
        self.closed.append(complete)


class Triton:
    """Answers each request with its id."""

    def __init__(self) -> None:
        self.asked: list[ModelInferRequest] = []
        self.error: Exception | None = None
        self.takes = asyncio.Event()  # unless it is cleared
        self.takes.set()

    def __call__(self, requests: AsyncIterator[bytes]) -> "Triton":
        self._requests = requests
        return self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await self.takes.wait()
        async for data in self._requests:
            if self.error is not None:
                raise self.error
            request = ModelInferRequest.FromString(data)
            self.asked.append(request)
            made = ModelStreamInferResponse(infer_response=ModelInferResponse(id=request.id))
            yield made.SerializeToString()
            if request.id == "last":
                return

    def cancel(self) -> None:
        pass


class Case:
    """One stream, its client's side and the engine's."""

    def __init__(self) -> None:
        self.channel, self.triton = Channel(), Triton()
        self.counted: list[tuple[str, ...]] = []
        self.registry = Registry()
        self.requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.refuses: Refusal | None = None
        route = SimpleNamespace(
            engine=SOURCE,
            has_steps=True,
            texts=Letters(),
            fits=lambda asked: asked.one_text,
            is_long=lambda _: False,
            body=lambda *_: Written(b"{}", tokens=3),
        )
        model = SimpleNamespace(
            **{name: getattr(MODEL, name) for name in MODEL.__dataclass_fields__} | {"route": route}
        )
        self.model: Any = model
        self.in_flight = RequestsInFlight()
        self.state = SimpleNamespace(
            settings=SimpleNamespace(log_prompts=True),
            limits=Limits(),
            draining=False,
            server=SimpleNamespace(hung=""),
            models=SimpleNamespace(find=self._find, made=dict),
            registry=self.registry,
            begun=lambda *_: None,
            ended=(),
            in_flight=self.in_flight,
            upstreams=set(),
            counts=SimpleNamespace(add=lambda *pair: self.counted.append(pair)),
            steps=SimpleNamespace(find=self._channel),
            encoders=None,
            inner_ids=self._inner_ids,
        )
        self.stream = GrpcStream(cast(Any, self.state), self.triton, "grpc alice", {})

    async def _find(self, _: str) -> Any:
        known = {name: getattr(self.model, name) for name in MODEL.__dataclass_fields__}
        return Model(**known)

    async def _channel(self, _: str) -> Channel:
        return self.channel

    async def _inner_ids(self, owner: str, client_id: str) -> tuple[list[str], None]:
        return self.in_flight.started_by(owner, client_id), None

    def send(self, *requests: ModelInferRequest) -> None:
        for request in requests:
            self.requests.put_nowait(request.SerializeToString())

    def answers(self) -> Any:
        return self.stream.answers(self._sent(), self._check)

    async def _sent(self) -> AsyncIterator[bytes]:
        while (data := await self.requests.get()) is not None:
            yield data

    async def _check(self, data: bytes) -> GrpcRequest:
        if self.refuses is not None:
            raise self.refuses
        return read_request(data)

    async def asked(self, count: int = 1) -> list[StepExchange]:
        """The engine's side of so many requests."""
        for _ in range(1000):
            if len(self.channel.asked) >= count:
                return self.channel.asked
            await asyncio.sleep(0.001)
        raise AssertionError(f"{len(self.channel.asked)} requests")

    def figures(self) -> dict[tuple[str, str], float]:
        """Requests that ended, by status and finish reason."""
        return {
            (sample.labels["status"], sample.labels["finish_reason"]): sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "trellis_requests_total"
        }


def run(body: Callable[[Case], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(body(Case()), 20)

    asyncio.run(main())


def request(request_id: str = "", **values: Any) -> ModelInferRequest:
    """As tritonclient writes it."""
    made = ModelInferRequest(model_name="ensemble", id=request_id)
    for tensor in request_inputs([b"x"], {"max_tokens": 4, "stream": True, **values}):
        made.inputs.append(tensor._get_tensor())
        made.raw_input_contents.append(tensor._get_content())
    return made


def read(piece: bytes) -> tuple[str, str, bool, str]:
    """Id, text, whether it is the last, and the error of a message."""
    made = ModelStreamInferResponse.FromString(piece)
    answer = made.infer_response
    value = triton.InferResult(answer).as_numpy("text_output")
    text = "" if value is None else value[0].decode()
    return answer.id, text, answer.parameters[FINAL].bool_param, made.error_message


def test_events_become_messages_and_are_counted() -> None:
    async def body(case: Case) -> None:
        case.send(request("one"))
        case.requests.put_nowait(None)
        answers = case.answers()
        first = asyncio.ensure_future(anext(answers))
        (exchange,) = await case.asked()
        assert case.in_flight.started_by("grpc alice", "one")
        exchange.take([0, [97]])
        assert read(await first) == ("one", "a", False, "")
        exchange.take([0, [98, 99], True, 0, {"finish": ["stop"], "other": [1]}])
        last = [piece async for piece in answers]
        assert [read(piece) for piece in last] == [("one", "bc", True, "")]
        answer = ModelStreamInferResponse.FromString(last[0]).infer_response
        assert triton.InferResult(answer).as_numpy("finish_reason").tolist() == [[b"stop"]]
        assert [tensor.name for tensor in answer.outputs] == ["finish_reason", "text_output"]
        assert case.channel.closed == [True]
        assert case.counted == [(MODEL.counted_by, "ensemble"), (MODEL.counted_by, "tensorrt_llm")]
        assert case.figures() == {("200", "unknown"): 1}
        assert not case.triton.asked
        assert not len(case.in_flight)
        assert not case.state.upstreams

    run(body)


def test_a_client_that_does_not_read_loses_nothing_and_keeps_little() -> None:
    async def body(case: Case) -> None:
        case.send(request())
        case.requests.put_nowait(None)
        answers = case.answers()
        first = asyncio.ensure_future(anext(answers))
        (exchange,) = await case.asked()
        exchange.take([0, [97]])
        pieces = [await first]
        for number in range(4 * UNSENT):
            exchange.take([0, [97 + number % 26]])
            await asyncio.sleep(0)
        assert len(case.stream._out) <= UNSENT
        exchange.take([0, [33], True, 0, {}])
        pieces += [piece async for piece in answers]
        assert len(pieces) < 2 * UNSENT
        text = "".join(read(piece)[1] for piece in pieces)
        assert text == "a" + "".join(chr(97 + n % 26) for n in range(4 * UNSENT)) + "!"
        assert read(pieces[-1])[2]

    run(body)


@pytest.mark.parametrize(
    ("end", "said", "status"),
    [
        ([0, "max_tokens: too many", "INVALID_ARG"], "max_tokens: too many", "400"),
        ([0, [0], True, 0, {}], "the tokens could not be decoded: no token", "200"),
        (TritonLost("the engine closed the connection"), "the engine closed", "200"),
    ],
)
def test_errors_are_the_ensemble_s(end: Any, said: str, status: str) -> None:
    async def body(case: Case) -> None:
        case.send(request("one"))
        case.requests.put_nowait(None)
        answers = case.answers()
        last = asyncio.ensure_future(anext(answers))
        (exchange,) = await case.asked()
        if isinstance(end, Exception):
            exchange.take([0, [97]])
            assert read(await last)[1] == "a"
            last = asyncio.ensure_future(anext(answers))
            await asyncio.sleep(0.01)
            exchange.interrupt(end)
        else:
            exchange.take(end)
        request_id, _, final, error = read(await last)
        assert (request_id, final) == ("one", True)
        assert error.startswith(f"in ensemble 'ensemble', {said}")
        assert [piece async for piece in answers] == []
        assert not case.counted
        assert [found for found, _ in case.figures()] == [status]

    run(body)


def test_a_socket_that_is_lost_as_it_is_asked_is_an_error() -> None:
    async def body(case: Case) -> None:
        case.channel.lost = True
        case.send(request("one"))
        case.requests.put_nowait(None)
        (only,) = [piece async for piece in case.answers()]
        assert "the engine's socket is closed" in read(only)[3]

    run(body)


def test_a_client_that_leaves_leaves_the_engine() -> None:
    async def body(case: Case) -> None:
        case.send(request(), request())
        answers = case.answers()
        first = asyncio.ensure_future(anext(answers))
        exchanges = await case.asked(2)
        exchanges[0].take([0, [97]])
        await first
        await answers.aclose()
        await asyncio.sleep(0)
        assert case.channel.closed == [False, False]
        assert sum(n for (_, why), n in case.figures().items() if why == "disconnected") == 2

    run(body)


def test_what_was_asked_before_a_refusal_is_answered_first() -> None:
    async def body(case: Case) -> None:
        case.send(request("one"))
        answers = case.answers()
        first = asyncio.ensure_future(anext(answers))
        (exchange,) = await case.asked()
        case.refuses = Refusal(429, "too many")
        case.send(request("two"))
        exchange.take([0, [97], True, 0, {}])
        assert read(await first)[1] == "a"
        with pytest.raises(Refusal, match="too many"):
            await anext(answers)

    run(body)


def test_what_triton_is_asked_it_answers_and_its_failure_ends_the_stream() -> None:
    async def body(case: Case) -> None:
        case.send(request("two", num_return_sequences=2))
        answers = case.answers()
        assert read(await anext(answers))[0] == "two"
        case.triton.error = ConnectionError("gone")
        case.send(request("three", num_return_sequences=2))
        with pytest.raises(ConnectionError):
            await anext(answers)

    run(body)


@pytest.mark.parametrize("count", [1, 80])
def test_a_call_that_triton_ends_ends_the_stream(count: int) -> None:
    async def body(case: Case) -> None:
        answers = case.answers()
        case.send(*(request("last", num_return_sequences=2) for _ in range(count)))
        assert read(await anext(answers))[0] == "last"
        with pytest.raises(Refusal, match="ended the stream"):
            await anext(answers)
        await asyncio.sleep(0.01)
        assert not case.stream._running

    run(body)


def test_requests_wait_unread_where_their_answers_are_not_read() -> None:
    async def body(case: Case) -> None:
        case.send(*(request(str(number)) for number in range(4 * RUNNING)))
        answers = case.answers()
        first = asyncio.ensure_future(anext(answers))
        exchanges = await case.asked(RUNNING)
        await asyncio.sleep(0.05)
        assert len(exchanges) <= RUNNING
        for exchange in exchanges:
            exchange.take([0, "the server is overloaded", "UNAVAILABLE"])
        await first
        await asyncio.sleep(0.05)
        assert len(case.stream._out) <= 2 * RUNNING
        assert len(case.stream._running) <= RUNNING + 1
        await answers.aclose()
        await asyncio.sleep(0.01)
        assert not case.stream._running

    run(body)


def test_a_client_that_leaves_while_triton_takes_nothing_leaves_no_task() -> None:
    async def body(case: Case) -> None:
        case.triton.takes.clear()
        case.send(*(request(str(number), num_return_sequences=2) for number in range(100)))
        answers = case.answers()
        first = asyncio.ensure_future(anext(answers))
        await asyncio.sleep(0.05)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        await answers.aclose()
        await asyncio.sleep(0.05)
        assert not case.stream._running

    run(body)


def stop_of(request_id: str) -> ModelInferRequest:
    made = ModelInferRequest(model_name="ensemble", id=request_id)
    made.inputs.add(name="stop", datatype="BOOL", shape=[1, 1])
    made.raw_input_contents.append(b"\1")
    return made


def test_no_stop_and_two_stops_are_what_they_say() -> None:
    async def body(case: Case) -> None:
        with case.in_flight.noted("grpc alice", RequestId("1f", "mine")):
            case.send(stop_of("mine"), stop_of("mine"))
            case.requests.put_nowait(None)
            assert [read(piece)[0] async for piece in case.answers()] == ["mine", "mine"]
        assert [each.id for each in case.triton.asked] == ["1f", "mine"] * 2

    run(body)
    assert is_stop(stop_of("a"))
    assert not is_stop(request("a", stop=False))
    assert is_stop(request("a", stop=True))


def test_a_stop_names_what_the_engine_knows_and_is_answered_once() -> None:
    async def body(case: Case) -> None:
        with contextlib.ExitStack() as started:
            for inner in ("1f", "2e"):
                started.enter_context(case.in_flight.noted("grpc alice", RequestId(inner, "mine")))
            started.enter_context(case.in_flight.noted("grpc bob", RequestId("3d", "mine")))
            case.send(stop_of("mine"))
            case.requests.put_nowait(None)
            pieces = [read(piece)[0] async for piece in case.answers()]
        assert pieces == ["mine"]
        assert [each.id for each in case.triton.asked] == ["1f", "2e", "mine"]

    run(body)


def test_a_stop_of_nothing_is_triton_s() -> None:
    async def body(case: Case) -> None:
        case.send(stop_of("mine"))
        case.requests.put_nowait(None)
        assert [read(piece)[0] async for piece in case.answers()] == ["mine"]

    run(body)


@pytest.mark.parametrize("of", ["draining", "hung", "no steps", "large", "no socket"])
def test_who_cannot_be_asked_by_the_socket_is_asked_by_triton(of: str) -> None:
    async def body(case: Case) -> None:
        sent = request("one")
        if of == "draining":
            case.state.draining = True
        elif of == "hung":
            case.state.server.hung = "the engine"
        elif of == "no steps":
            case.model.route.has_steps = False
        elif of == "no socket":
            case.channel = cast(Any, None)
        else:
            sent = request("one", stop_words=["x" * 70_000])
        case.send(sent)
        case.requests.put_nowait(None)
        assert [read(piece)[0] async for piece in case.answers()] == ["one"]

    run(body)


def changed(change: Callable[[ModelInferRequest], object]) -> ModelInferRequest:
    made = request("one")
    change(made)
    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.parameters["timeout"].MergeFrom(type(made.parameters["x"])()),
        lambda made: setattr(made, "model_version", "1"),
        lambda made: made.ClearField("raw_input_contents"),
        lambda made: (
            made.inputs[0]
            .parameters["shared_memory_region"]
            .MergeFrom(type(made.parameters["x"])())
        ),
        lambda made: (
            made.outputs.add(name="text_output")
            .parameters["classification"]
            .MergeFrom(type(made.parameters["x"])())
        ),
        lambda made: made.outputs.add(name="nothing"),
        lambda made: setattr(made.inputs[1], "datatype", "FP32"),
        lambda made: made.inputs[1].shape.append(7),
        lambda made: made.raw_input_contents.__setitem__(0, b"\1\0\0\0\xff"),
        lambda made: setattr(made, "id", "a\nb"),
    ],
)
def test_what_is_not_read_here_is_triton_s(change: Callable[[ModelInferRequest], object]) -> None:
    made = changed(change)
    made.parameters.pop("x", None)
    assert read_tensors(MODEL, made, "1f", Limits()) is None


def test_a_request_is_read_as_generate_has_it() -> None:
    made = request("one", stop_words=["a", "안"], temperature=0.1, random_seed=2**63)
    made.parameters[EMPTY_FINAL].bool_param = True
    made.outputs.add(name="text_output")
    found = read_tensors(MODEL, made, "1f", Limits())
    assert found is not None
    values = dict(found.prepared.values)
    assert values.pop("temperature") == pytest.approx(0.1)
    assert values == {
        "text_input": "x",
        "max_tokens": 4,
        "stream": True,
        "stop_words": ["a", "안"],
        "random_seed": 2**63,
    }
    assert found.prepared.request_id == RequestId("1f", "one")
    assert [*found.outputs] == ["text_output"]
