"""Several sequences of one request: none loses a piece, and the failure of one is that of all."""

import asyncio
import json
import re
import socket
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.byte_tokenizer import ByteTokenizer
from support.openai_api import joined
from trellis.gateway.awaited import Awaited, Sink
from trellis.gateway.engine_requests import Written
from trellis.gateway.limits import Limits
from trellis.gateway.metrics.record import Record
from trellis.gateway.metrics.registry import Registry
from trellis.gateway.openai.asking import Inputs, LogProbs
from trellis.gateway.openai.chat_fields import ChatRequest
from trellis.gateway.openai.chat_writer import ChatWriter
from trellis.gateway.openai.choices import Choice, Usage
from trellis.gateway.openai.engine_events import StepEvents, TritonEvents
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.generation import Generation
from trellis.gateway.openai.jobs import Flow, Job, Prompt
from trellis.gateway.openai.parsing import PLAIN_TEXT, Parsing
from trellis.gateway.sending import Client, Message
from trellis.gateway.step_channel import StepChannel
from trellis.gateway.triton import ClientGone, CutOff, TritonLost
from trellis.gateway.ways import StepWay, Upstream
from trellis.ipc.frames import PROTOCOL, Frames, frame
from trellis.parsers import Setup
from trellis.parsers.registry import load
from trellis.pipeline.decode import Detokenizer
from trellis.pipeline.stop_strings import StopMatcher

TOKENIZER = ByteTokenizer()
TEXTS = Detokenizer.of(TOKENIZER)
TEXT = "안녕 🙂"
OVERLOADED = {"error": "the server is overloaded: wait"}


class Scripted(Awaited):
    """An answer of Triton's whose head and pieces come after so many turns of the loop."""

    def __init__(self, turns: list[int], pieces: list[bytes], status: int = 200) -> None:
        super().__init__()
        self.status = 0
        self.content_type = b"text/event-stream" if status == 200 else b"application/json"
        self._script = (turns, pieces, status)
        self._pending: list[bytes] = []
        self._ended = False
        self.closed: bool | None = None
        self._task = asyncio.get_running_loop().create_task(self._play())

    async def _play(self) -> None:
        turns, pieces, status = self._script
        for turn, piece in zip(turns, [b"", *pieces], strict=False):
            for _ in range(turn):
                await asyncio.sleep(0)
            self.status = status
            if piece and not (self._sink is not None and self._sink(piece)):
                if self._sink is not None:
                    self._sink = None
                else:
                    self._pending.append(piece)
            self._wake()
        self._ended = True
        self._wake()

    async def head(self) -> None:
        while not self.status:
            await self._more()

    async def whole(self, _most: int) -> bytes:
        while not self._ended:
            await self._more()
        return b"".join(self._pending)

    async def pass_to(self, sink: Sink) -> bool:
        while True:
            while self._pending:
                if not sink(self._pending.pop(0)):
                    return False
            if self._ended:
                return True
            if await self._left_to(sink):
                return False


class Scripts:
    """A way to ask that answers by a script."""

    def __init__(self, *script: Any) -> None:
        self.script = script
        self.complete: bool | None = None

    async def open(self) -> Upstream:
        return Scripted(*self.script)

    def close(self, upstream: Any, complete: bool) -> None:
        self.complete = complete


def event(**members: Any) -> bytes:
    return b"data: " + json.dumps(members).encode() + b"\n\n"


def pieces() -> list[bytes]:
    """An answer's, two bytes of text each."""
    data = list(TEXT.encode())
    made = [event(output_ids=data[at : at + 2]) for at in range(0, len(data), 2)]
    return [*made, event(output_ids=[], stream_end=True, finish_reason="stop")]


def generation(
    ways: list[Scripts], stops: tuple[str, ...] = (), counted: list[str] | None = None
) -> Generation:
    """`stops`: what the gateway itself ends answers at; `counted`: gets the models of each."""
    counted = [] if counted is None else counted
    counts = SimpleNamespace(add=lambda _, name: counted.append(name))
    state = SimpleNamespace(upstreams=set(), limits=Limits(), counts=counts)
    engine = SimpleNamespace(ensemble="ensemble", model="tensorrt_llm")
    served = SimpleNamespace(engine=engine, model=SimpleNamespace(counted_by="preprocessing"))
    made = Generation(cast(Any, state), cast(Any, served), Record())
    for index, way in enumerate(ways):
        matcher = StopMatcher(TOKENIZER, list(stops)) if stops else None
        reader = TritonEvents("ensemble", TEXTS, "1f", None, matcher=matcher)
        choice = Choice(index, TEXTS.sequence(), TOKENIZER, [1], used=made._used)
        made._jobs.append(Job(cast(Any, way), reader, choice))
    return made


def run(
    ways: list[Scripts],
    behind: bool = False,
    leaves: bool = False,
    streams: bool = True,
    **more: Any,
) -> list[Message]:
    """What the client is sent, whose answers come in pieces. Raises what it is refused with."""

    async def main() -> list[Message]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            await asyncio.sleep(0)
            sent.append(message)

        async def receive() -> Message:
            await asyncio.sleep(0 if leaves else 1000)
            return {"type": "http.disconnect"}

        def write(data: bytes) -> bool:
            if not behind:
                sent.append({"type": "http.response.body", "body": data})
            return not behind

        made = generation(ways, **more)
        for job in made._jobs:
            job.in_pieces = True
        messages = [{"role": "user", "content": "Hi"}]
        asked = ChatRequest.model_validate({"model": "m", "messages": messages, "stream": streams})
        writer = ChatWriter("chatcmpl-1", asked, made)
        await made.run(Client(receive, send, write), writer, streams)
        return sent

    return asyncio.run(main())


def body(sent: list[Message]) -> list[str]:
    """The data of all events."""
    text = b"".join(message.get("body", b"") for message in sent).decode()
    return [line.removeprefix("data: ") for line in text.splitlines() if line]


def choices(sent: list[Message], streams: bool) -> list[dict[str, Any]]:
    """Of a stream, or of an answer that is whole, the latter as a stream's are joined."""
    *chunks, last = body(sent)
    if streams:
        assert last == "[DONE]"
        found: list[dict[str, Any]] = joined([json.loads(chunk) for chunk in chunks])["choices"]
        return found
    whole = json.loads(last)
    assert whole["usage"]["completion_tokens"] > 0
    return [{**each, "text": each["message"]["content"]} for each in whole["choices"]]


TURNS = st.lists(st.integers(0, 6), min_size=20, max_size=20)


@settings(deadline=None)
@given(st.lists(TURNS, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_a_sequence_that_ends_at_a_stop_string_is_ended_at_its_engine(
    turns: list[list[int]], behind: bool, streams: bool
) -> None:
    ways = [Scripts(each, pieces()) for each in turns]
    counted: list[str] = []
    sent = run(ways, behind, streams=streams, stops=("녕",), counted=counted)
    found = [(each["text"], each["finish_reason"]) for each in choices(sent, streams)]
    assert found == [("안", "stop")] * len(ways)
    assert [way.complete for way in ways] == [False] * len(ways)
    assert sorted(counted) == sorted(["ensemble", "tensorrt_llm"] * len(ways)), "each once"


@settings(deadline=None)
@given(st.lists(TURNS, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_no_sequence_loses_a_piece_whatever_comes_when(
    turns: list[list[int]], behind: bool, streams: bool
) -> None:
    ways = [Scripts(each, pieces()) for each in turns]
    found = choices(run(ways, behind, streams=streams), streams)
    assert [each["text"] for each in found] == [TEXT] * len(turns)
    assert {each["finish_reason"] for each in found} == {"stop"}
    assert all(way.complete for way in ways)


@settings(deadline=None)
@given(TURNS, st.integers(0, 40), st.booleans())
def test_a_sequence_that_fails_ends_all(turns: list[int], late: int, streams: bool) -> None:
    failing = Scripts([late, 0], [json.dumps(OVERLOADED).encode()], 400)
    going = Scripts(turns, pieces())
    try:
        *_, last = body(run([going, failing], streams=streams))
    except OpenAIError as error:
        assert error.status == 503  # noqa: PT017
    else:
        assert "overloaded" in json.loads(last)["error"]["message"]
    assert failing.complete


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("late", [0, 5])
def test_a_failure_of_the_one_sequence_is_the_answer_s_status(late: int, streams: bool) -> None:
    with pytest.raises(OpenAIError) as caught:
        run([Scripts([late, 0], [json.dumps(OVERLOADED).encode()], 400)], streams=streams)
    assert caught.value.status == 503


def test_a_client_that_leaves_ends_all_sequences() -> None:
    ways = [Scripts([1, 10_000], pieces()) for _ in range(3)]
    with pytest.raises(ClientGone):
        run(ways, leaves=True)
    assert [way.complete for way in ways] == [False] * 3


@pytest.mark.parametrize(("error", "status"), [(TritonLost("x"), 502), (CutOff("stopped"), 503)])
def test_a_server_that_goes_away_is_said(error: Exception, status: int) -> None:
    class Lost(Scripts):
        async def open(self) -> Upstream:
            upstream = Scripted([10_000], [])
            upstream.interrupt(error)
            return upstream

    with pytest.raises(OpenAIError) as caught:
        run([Lost()])
    assert caught.value.status == status


class Failing(ByteTokenizer):
    """Knows one token."""

    def token_bytes(self, token: int) -> bytes:
        if token == ord("!"):
            raise ValueError("no such token")
        return super().token_bytes(token)


@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=3), max_size=8), st.booleans())
def test_a_step_s_ids_are_written_as_any_other_piece(steps: list[list[int]], always: bool) -> None:
    """The short way of plain events, and that of all others."""
    made = []
    for more in ([], [False, 0, {}]):
        events: list[Any] = [[1, ids, *more] for ids in steps]
        flow, written = new_flow(TOKENIZER, always)
        for event in [*events, [1, [65], True, 0, {"finish_reason": "length"}]]:
            assert flow.take(event)
        made.append(re.sub(rb'"created":\d+', b"", b"".join(written)))  # may lie apart
    assert made[0] == made[1]


def test_a_token_that_cannot_be_decoded_ends_the_answer() -> None:
    flow, _ = new_flow(Failing(), False)
    assert flow.take([1, [65]])
    assert not flow.take([1, [ord("!")]])
    assert flow.error is not None
    assert "no such token" in flow.error.message


def test_what_a_client_does_not_take_at_once_is_kept() -> None:
    flow, written = new_flow(TOKENIZER, False, behind=True)
    assert not flow.take([1, [65]])
    assert b'"content":"A"' in flow.left
    assert written == []


def new_flow(
    tokenizer: ByteTokenizer, always: bool, behind: bool = False
) -> tuple[Flow, list[bytes]]:
    """One by the step socket, and what it writes. `always`: whether each chunk has the usage."""
    made = generation([])
    text = Detokenizer.of(tokenizer).sequence()
    choice = Choice(0, text, tokenizer, [1], used=made._used)
    options = {"include_usage": True, "continuous_usage_stats": always}
    messages = [{"role": "user", "content": "x"}]
    chat = {"model": "m", "messages": messages, "stream": True, "stream_options": options}
    writer = ChatWriter("chatcmpl-1", ChatRequest.model_validate(chat), made)
    job = Job(cast(Any, None), StepEvents(), choice)
    made._jobs.append(job)
    written: list[bytes] = []

    def write(data: bytes) -> bool:
        if not behind:
            written.append(data)
        return not behind

    return Flow(job, writer, write, made.refusal), written


def test_an_answer_that_cannot_be_written_ends_itself_alone() -> None:
    flow, written = new_flow(TOKENIZER, always=True)

    def broken(*_: Any) -> bytes:
        raise KeyError("arguments")

    flow._piece = cast(Any, broken)
    assert not flow.take([1, [65], True, 0, {"finish_reason": "stop"}])
    assert flow.error is not None
    assert flow.error.status == 500
    assert written == []


BROKEN = [1, [ord("!")]]  # a token that `Failing` does not know


@pytest.mark.parametrize(
    ("last", "leaves"),
    [
        (BROKEN, True),
        ([*BROKEN, False, 0, {}], True),
        ([*BROKEN, True, 0, {"finish_reason": "stop"}], False),
        ([1, "the engine failed: x", "INTERNAL"], False),
        ([1, [66], True, 0, {"finish_reason": "stop"}], False),
    ],
)
def test_the_engine_hears_of_an_answer_that_fails_here_alone(last: list[Any], leaves: bool) -> None:
    """Else it goes on to the last token; of an answer that it ended it hears nothing."""

    async def main() -> list[list[Any]]:
        ours, engine = socket.socketpair()
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(StepChannel, sock=ours)
        made = generation([])
        text = Detokenizer.of(Failing()).sequence()
        choice = Choice(0, text, Failing(), [1])
        made._jobs.append(Job(StepWay(channel, b"{}", b"text/event-stream"), StepEvents(), choice))

        async def receive() -> Message:
            await asyncio.sleep(1000)
            raise AssertionError

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                engine.sendall(frame("events", [last]))

        messages = [{"role": "user", "content": "Hi"}]
        asked = ChatRequest.model_validate({"model": "m", "messages": messages, "stream": True})
        hello = frame("hello", {"protocol": PROTOCOL, "version": "1"})
        engine.sendall(hello + frame("events", [[1, [65]]]))
        client = Client(receive, send, lambda _: True)
        answering = made.run(client, ChatWriter("chatcmpl-1", asked, made), streams=True)
        await asyncio.wait_for(answering, 10)
        channel.transport.close()
        await asyncio.sleep(0)
        with engine:
            engine.settimeout(10)
            return Frames().feed(engine.makefile("rb").read())

    asked, *more = asyncio.run(main())
    assert asked == ["ask", 1, {}]
    assert more == ([["leave", 1]] if leaves else [])


CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_an_answer_of_one_call_is_over_behind_it_and_the_engine_hears_of_it(
    late: bool, streams: bool
) -> None:
    """`late`: the engine ends the answer with the step that the call does, and hears of nothing."""

    async def main() -> tuple[list[str], list[list[Any]], Generation]:
        ours, engine = socket.socketpair()
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(StepChannel, sock=ours)
        made = generation([])
        parsing = Parsing(load("hermes"), Setup(), one_call=True)
        text = parsing.text(TEXTS, TOKENIZER, None)
        choice = Choice(
            0,
            text,
            TOKENIZER,
            [1],
            parser=parsing.parser(),
            used=made._used,
            one_call=parsing.one_call,
        )
        way = StepWay(channel, b"{}", b"text/event-stream")
        made._jobs.append(Job(way, StepEvents(), choice, in_pieces=True))
        sent: list[bytes] = []

        async def receive() -> Message:
            await asyncio.sleep(1000)
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message.get("body", b""))

        def write(data: bytes) -> bool:
            sent.append(data)
            return True

        end = [True, 0, {"finish_reason": "length", "total_tokens": 99}] if late else []
        event = [1, list(f"So: {CALL}lost{CALL}".encode()), *end]
        hello = frame("hello", {"protocol": PROTOCOL, "version": "1"})
        engine.sendall(hello + frame("events", [event]))
        messages = [{"role": "user", "content": "Hi"}]
        asked = ChatRequest.model_validate({"model": "m", "messages": messages, "stream": streams})
        writer = ChatWriter("chatcmpl-1", asked, made)
        await asyncio.wait_for(made.run(Client(receive, send, write), writer, streams), 10)
        channel.transport.close()
        await asyncio.sleep(0)
        with engine:
            engine.settimeout(10)
            heard = Frames().feed(engine.makefile("rb").read())
        lines = b"".join(sent).decode().split("\n\n")
        return [line.removeprefix("data: ") for line in lines if line], heard, made

    (*chunks, last), (asked, *more), made = asyncio.run(main())
    if streams:
        assert last == "[DONE]"
        (choice,) = joined([json.loads(chunk) for chunk in chunks])["choices"]
        text, calls = choice["text"], choice["calls"]
    else:
        (choice,) = json.loads(last)["choices"]
        text = choice["message"]["content"]
        calls = [each["function"] for each in choice["message"]["tool_calls"]]
    assert (text, choice["finish_reason"]) == ("So: ", "tool_calls")
    assert calls == [{"name": "f", "arguments": "{}"}]
    assert asked == ["ask", 1, {}]
    assert more == ([] if late else [["leave", 1]])
    assert made.usage().completion == (99 if late else len(f"So: {CALL}lost{CALL}"))
    assert made._jobs[0].complete == late


PARTS = st.sampled_from(["<think>", "Hm 🙂", "</think>", "\n", "So.", "e\u0301"])
STEPS = st.lists(st.tuples(st.integers(0, 3), PARTS, st.booleans()), max_size=20)
LASTS = st.fixed_dictionaries(
    {},
    optional={
        "total_tokens": st.integers(0, 99),
        "cached_tokens": st.none() | st.integers(0, 9),
        "num_output_tokens": st.integers(0, 9),
    },
)


def usage_of_all(choices: list[Choice]) -> dict[str, Any]:
    """Counted sequence by sequence, with two of each prompt; the first says what was cached."""
    cached = [each.cached for each in choices[::2] if each.cached is not None]
    thought = [each.reasoning for each in choices if each.reasoning is not None]
    made = Usage(
        7,
        sum(each.completion for each in choices),
        sum(cached) if cached else None,
        sum(thought) if thought else None,
    )
    return made.as_json()


@settings(deadline=None)
@given(STEPS, st.lists(LASTS, min_size=4, max_size=4), st.booleans(), st.booleans())
def test_each_chunk_s_usage_is_that_of_all_sequences_so_far(
    steps: list[tuple[int, str, bool]], lasts: list[dict[str, Any]], reasons: bool, log_probs: bool
) -> None:
    made = generation([])
    made._prompt_tokens = 7
    messages = [{"role": "user", "content": "x"}]
    options = {"include_usage": True, "continuous_usage_stats": True}
    chat = {"model": "m", "messages": messages, "stream": True, "stream_options": options}
    writer = ChatWriter("chatcmpl-1", ChatRequest.model_validate(chat), made)
    parsing = Parsing(load("think"), Setup()) if reasons else PLAIN_TEXT
    choices: list[Choice] = []
    flows: list[Flow] = []
    chunks: list[dict[str, Any]] = []

    def write(data: bytes) -> bool:
        for line in data.split(b"\n\n")[:-1]:
            chunk = json.loads(line.removeprefix(b"data: "))
            assert chunk["usage"] == usage_of_all(choices)
            chunks.append(chunk)
        return True

    for index in range(4):
        text = parsing.text(TEXTS, TOKENIZER, None)
        parser = parsing.parser()
        choice = Choice(
            index,
            text,
            TOKENIZER,
            [1],
            log_probs,
            parser,
            parsing.reasons,
            made._used,
            first=index % 2 == 0,
        )
        job = Job(cast(Any, None), StepEvents(), choice)
        made._jobs.append(job)
        choices.append(choice)
        flows.append(Flow(job, writer, write, made.refusal))
    for index, part, plain in steps:
        for token in part.encode():
            assert flows[index].take([1, [token], *([] if plain else [False, 0, {}])])
    for flow, outputs in zip(flows, lasts, strict=True):
        assert flow.take([1, [66], True, 0, {"finish_reason": "stop", **outputs}])
    assert len(chunks) >= 4
    assert made.usage().as_json() == usage_of_all(choices)


def test_what_was_cached_of_a_prompt_counts_once_however_many_sequences_it_has() -> None:
    record = Record()
    made = prepared([Prompt([1, 2, 3]), Prompt([4, 5])], 2, record)
    for job, cached in zip(made._jobs, (2, 3, 1, 2), strict=True):
        job.choice.read([1, [65], True, 0, {"finish_reason": "stop", "cached_tokens": cached}])
        job.way.meter.ended(["stop", cached, 0.0, 0.0])  # type: ignore[attr-defined]
    assert (made.usage().prompt, made.usage().cached) == (5, 3)
    assert (record.prompt_tokens, record.cached) == (5, 3)


def prepared(prompts: list[Prompt], n: int, record: Record) -> Generation:
    """A request that can be asked by the step socket."""

    async def find(_: str) -> Any:
        return object()

    state = SimpleNamespace(
        limits=Limits(),
        registry=Registry(),
        settings=SimpleNamespace(log_prompts=False),
        steps=SimpleNamespace(find=find),
    )
    served = SimpleNamespace(
        engine=SimpleNamespace(ensemble="ensemble", model="tensorrt_llm"),
        requests=SimpleNamespace(write=lambda *_: Written(b"{}")),
        route=SimpleNamespace(has_steps=True, texts=TEXTS),
        tokenizer=TOKENIZER,
    )
    made = Generation(cast(Any, state), cast(Any, served), record)
    asyncio.run(made.prepare(prompts, n, Inputs({"max_tokens": 1}), LogProbs(), streams=False))
    return made


def test_a_chunk_s_usage_takes_no_longer_with_many_sequences() -> None:
    def seconds(sequences: int) -> float:
        made = generation([Scripts() for _ in range(sequences)])
        started = time.process_time()
        for _ in range(2000):
            made.usage()
        return time.process_time() - started

    few, many = (min(seconds(count) for _ in range(3)) for count in (1, 256))
    assert many < 5 * few  # counted sequence by sequence: thirty times
