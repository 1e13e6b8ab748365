"""Large bodies are read as small ones are, in a process that may die and has limits."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis.gateway.limits import Limits
from trellis.gateway.models import Model, read_model
from trellis.gateway.parse_process import ParseProcess
from trellis.gateway.reading import (
    ReadRequest,
    Sent,
    answer,
    question,
    read_answer,
    read_question,
    read_request,
)
from trellis.gateway.refusals import Refusal

from .test_fields import BY_ID, INNER, MODEL

LIMITS = Limits()
LONG = "x" * 100_000
BODIES: dict[str, dict[str, Any]] = {
    "a long prompt": {"text_input": LONG, "max_tokens": 4, "id": "mine"},
    "Korean": {"text_input": "안녕 😀" * 20_000, "stream": True},
    "a batch": {"text_input": [LONG, "b"], "max_tokens": [4, 5]},
    "a long list": {"text_input": "x", "stop_words": ["y"] * 30_000},
    "numbers": {"text_input": "x", "top_p": 0.5, "embedding_bias_weights": [0.25] * 30_000},
    "a stop": {"id": "7", "stop": True, "text_input": LONG},
    "told": {"text_input": LONG, "return_num_input_tokens": True, "num_return_sequences": 3},
}
INFER = {
    "id": "mine",
    "inputs": [{"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": [LONG]}],
    "outputs": [{"name": "text_output", "parameters": {"binary_data": True}}],
}


def sent(body: dict[str, Any] | bytes, by_infer: bool = False, once: bool = False) -> Sent:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Sent([(b"host", b"x")], data, INNER, once, by_infer)


def in_process(body: Callable[[ParseProcess], Awaitable[None]], limits: Limits = LIMITS) -> None:
    async def run() -> None:
        parser = ParseProcess(limits)
        try:
            await body(parser)
        finally:
            parser.kill()
            await asyncio.sleep(0.05)

    asyncio.run(run())


def outcome(made: ReadRequest) -> tuple[Any, ...]:
    """All that counts of it: large values do not come back, and are in the body."""
    asked = made.asked
    small = {
        name: value for name, value in asked.values.items() if not isinstance(value, str | list)
    }
    infer = made.infer and (made.infer.rows, made.infer.wanted, made.infer.request_id)
    plain = asked._replace(values={})
    return plain, small, asked.streams, asked.skip_special_tokens, infer


@pytest.mark.parametrize("model", [MODEL, BY_ID], ids=["python", "tensorrtllm"])
def test_a_body_is_read_there_as_it_is_here(model: Model) -> None:
    async def body(parser: ParseProcess) -> None:
        for one in BODIES.values():
            here = read_request(model, sent(one), LIMITS)
            there = await parser.read(model, sent(one))
            assert outcome(there) == outcome(here)
            assert sum(map(len, map(str, there.asked.values.values()))) < 2000
        here, there = (
            read_request(model, sent(INFER, by_infer=True, once=True), LIMITS),
            await parser.read(model, sent(INFER, by_infer=True, once=True)),
        )
        assert outcome(there) == outcome(here)

    in_process(body)


def refusal_of(model: Model, asked: Sent) -> tuple[int, str] | None:
    """Why it is refused, if it is."""
    try:
        read_request(model, asked, LIMITS)
    except Refusal as refusal:
        return refusal.status, refusal.message
    return None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from([*MODEL.fields, "id", "parameters", "user"])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, JSON, max_size=5), st.booleans())
def test_what_goes_there_and_comes_back_loses_nothing(body: dict[str, Any], once: bool) -> None:
    asked = sent({"text_input": "Hi", **body}, once=once)
    written = json.loads(json.dumps(question(MODEL, asked, LIMITS)))
    model, again, limits = read_question(written, asked.body)
    assert (again, limits) == (asked, LIMITS)
    assert refusal_of(model, again) == refusal_of(MODEL, asked)
    if refusal_of(model, again):
        return
    here = read_request(MODEL, asked, LIMITS)
    there = read_request(model, again, limits)
    back = read_answer(json.loads(json.dumps(answer(there))), INNER, there.asked.body)
    assert outcome(back) == outcome(here)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b" " * 100_000, "the body is empty"),
        (b"[" * 100_000, "the body is nested too deeply"),
        (json.dumps({f"k{n}": 1 for n in range(20_000)}).encode(), "the body has 20000 keys"),
        (json.dumps({"a": [1] * 200_000}).encode(), "the body has 199999 values"),
        (json.dumps({"text_input": LONG, "top_p": "x"}).encode(), 'top_p: "x" is not a number'),
        (json.dumps({"text_input": LONG, "tokens": 1}).encode(), "tokens: no input of ensemble"),
        (b'{"text_input": "\xff' + b"x" * 100_000, "the body is not valid UTF-8"),
    ],
)
def test_a_wrong_body_is_refused_with_its_reason_and_the_process_goes_on(
    body: bytes, message: str
) -> None:
    async def run(parser: ParseProcess) -> None:
        await parser.read(MODEL, sent(BODIES["a long prompt"]))
        before = parser._process
        with pytest.raises(Refusal) as caught:
            await parser.read(MODEL, sent(body))
        assert (caught.value.status, caught.value.message[: len(message)]) == (400, message)
        await parser.read(MODEL, sent(BODIES["a long prompt"]))
        assert parser._process is before

    in_process(run)


def test_a_process_that_dies_is_a_refusal_and_another_one_is_started() -> None:
    async def run(parser: ParseProcess) -> None:
        await parser.read(MODEL, sent(BODIES["a long prompt"]))
        assert parser._process is not None
        os.kill(parser._process.pid, signal.SIGKILL)
        with contextlib.suppress(Refusal):  # the first may find it still dying
            await parser.read(MODEL, sent(BODIES["a long prompt"]))
        made = await parser.read(MODEL, sent(BODIES["a long prompt"]))
        assert made.asked.request_id.client == "mine"

    in_process(run)


@pytest.mark.slow
def test_a_body_that_takes_too_long_is_refused_and_the_process_ended() -> None:
    async def run(parser: ParseProcess) -> None:
        await parser.read(MODEL, sent(BODIES["a long prompt"]))
        assert parser._process is not None
        os.kill(parser._process.pid, signal.SIGSTOP)
        pid, begin = parser._process.pid, time.monotonic()
        with pytest.raises(Refusal) as caught:
            await parser.read(MODEL, sent(BODIES["a long prompt"]))
        assert "could not be read in 2 s" in caught.value.message
        assert time.monotonic() - begin < 5
        assert parser._process is None
        await asyncio.sleep(0.2)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    in_process(run, replace(LIMITS, parse_seconds=2.0))


@pytest.mark.slow
def test_a_body_that_takes_too_much_memory_is_refused() -> None:
    limits = replace(LIMITS, parse_memory_bytes=32 << 20, json_items=10_000_000)
    large = json.dumps({"text_input": "x", "bad_words": ["y" * 40] * 300_000}).encode()

    async def run(parser: ParseProcess) -> None:
        with pytest.raises(Refusal) as caught:
            await parser.read(MODEL, sent(large))
        assert caught.value.status == 413
        assert (await parser.read(MODEL, sent(BODIES["a long prompt"]))).asked.one_text

    in_process(run, limits)


def test_only_so_many_bodies_wait() -> None:
    async def run(parser: ParseProcess) -> None:
        asked = [parser.read(MODEL, sent(BODIES["a long prompt"])) for _ in range(5)]
        made = await asyncio.gather(*asked, return_exceptions=True)
        assert [getattr(one, "status", 200) for one in made] == [200, 200, 200, 503, 503]

    in_process(run, replace(LIMITS, parse_queue=3))


def test_others_are_served_while_a_large_body_is_read() -> None:
    """The loop never waits for long: not for the parsing, nor for the bytes of it."""
    large = json.dumps({"text_input": "x", "stop_words": ["y"] * 99_000}).encode()

    async def run(parser: ParseProcess) -> None:
        await parser.read(MODEL, sent(BODIES["a long prompt"]))
        task = asyncio.create_task(parser.read(MODEL, sent(large)))
        longest, before = 0.0, time.monotonic()
        while not task.done():
            await asyncio.sleep(0.001)
            longest, before = max(longest, time.monotonic() - before), time.monotonic()
        assert task.result().asked.size == len(large)
        assert longest < 0.15

    in_process(run)


def test_a_model_that_is_not_checked_is_read_too() -> None:
    other = read_model({"name": "other"}, lambda _: {})
    body = {"any": [LONG], "id": "mine"}

    async def run(parser: ParseProcess) -> None:
        made = await parser.read(other, sent(body))
        assert json.loads(made.asked.body) == {**body, "id": INNER}

    in_process(run)
