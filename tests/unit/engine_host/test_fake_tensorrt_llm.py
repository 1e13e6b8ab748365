# SPDX-License-Identifier: Apache-2.0
"""The fake of the package tensorrt_llm: what an adapter may be wrong about is there."""

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from support.fake_library import EOS, VERSIONS, import_adapter

ALL = pytest.mark.parametrize("version", VERSIONS)
BOTH = pytest.mark.parametrize("version", ["1.2.1", "1.4.0rc1"])  # the samplers differ
WAIT = 5.0
Open = Callable[..., Any]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Iterator[Open]:
    """The package of a release, and an LLM of it: `fake("1.2.1", step_seconds=0.1)`."""
    opened: list[Any] = []

    def load(version: str, arguments: dict[str, Any] | None = None, **behaviour: Any) -> Any:
        adapter = import_adapter(monkeypatch, version, **behaviour)
        package = sys.modules["tensorrt_llm"]
        llm = package.LLM(str(checkpoint), skip_tokenizer_init=True, **(arguments or {}))
        opened.append(llm)
        return SimpleNamespace(
            llm=llm, params=package.SamplingParams, error=adapter.LibraryRequestError
        )

    yield load
    for llm in opened:
        closing = threading.Thread(target=llm.shutdown, daemon=True)
        closing.start()
        closing.join(1)
        for process in llm._executor._processes if llm._executor else ():
            process.kill()
            process.wait()


def warm(params: Any, **more: Any) -> Any:
    return params(end_id=EOS, temperature=1.5, top_k=0, top_p=1.0, seed=5, **more)


async def soon(waiting: Any) -> Any:
    return await asyncio.wait_for(waiting, WAIT)


@ALL
def test_it_takes_a_while_to_load_and_says_what_it_is(
    fake: Open, version: str, capfd: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    fake(version, load_seconds=0.3)
    assert time.monotonic() - began >= 0.3
    assert f"TensorRT LLM version: {version}\n" in capfd.readouterr().out


@ALL
def test_names_that_it_does_not_have_are_rejected(fake: Open, version: str) -> None:
    package = fake(version)
    with pytest.raises(ValueError, match="got invalid argument: max_bach_size"):
        type(package.llm)("x", max_bach_size=1)
    with pytest.raises(ValueError, match="_tensorrt_engine"):
        type(package.llm)("x", build_config={})
    with pytest.raises(TypeError):
        package.params(max_new_tokens=1)
    with pytest.raises(AttributeError):
        package.params().max_new_tokens = 1


@BOTH
def test_an_answer_is_one_object_that_changes_when_it_is_pulled(fake: Open, version: str) -> None:
    package = fake(version)

    async def ask() -> None:
        params = warm(package.params, n=3, max_tokens=6)
        answer = package.llm.generate_async([5, 6], params, streaming=True)
        await asyncio.sleep(0.2)
        assert [output.token_ids for output in answer.outputs] == [[], [], []]
        stale = 0
        async for seen in answer:
            assert seen is answer
            stale += sum(bool(output.token_ids_diff) for output in answer.outputs) > 1
        assert stale
        reasons = [output.finish_reason for output in answer.outputs]
        assert reasons.count(None) == 2
        assert answer.finished

    asyncio.run(ask())


@BOTH
def test_ids_must_be_pythons_own(fake: Open, version: str) -> None:
    package = fake(version)
    with pytest.raises(AssertionError):
        package.llm.generate_async(list(np.array([5])), warm(package.params))
    with pytest.raises(IndexError):
        package.llm.generate_async([], warm(package.params))
    with pytest.raises(TypeError):
        package.llm.generate_async(np.array([5]), warm(package.params))


@BOTH
def test_words_need_a_tokenizer_and_so_does_an_answer_without_an_end_id(
    fake: Open, version: str
) -> None:
    package = fake(version)
    with pytest.raises(RuntimeError, match="is not processed by tokenizer"):
        package.llm.generate_async([5], warm(package.params, stop=["a"]))
    with pytest.raises(ValueError, match="tokenizer is required"):
        package.llm.generate_async([5], package.params())


@ALL
def test_it_writes_to_what_it_is_given(fake: Open, version: str, checkpoint: Path) -> None:
    (checkpoint / "generation_config.json").write_text(json.dumps({"top_k": 4}))
    package = fake(version)
    params = package.params(end_id=EOS)
    package.llm.generate_async([5], params)
    assert params.pad_id == EOS
    assert params.top_k == (4 if version == "1.4.0rc1" else None)


@BOTH
def test_without_a_loop_only_blocking_calls_work(fake: Open, version: str) -> None:
    package = fake(version)
    answer = package.llm.generate_async([5], warm(package.params, max_tokens=4))
    with pytest.raises(AssertionError, match="event loop was not present"):
        asyncio.run(answer.aresult())
    assert answer.result().outputs[0].token_ids


@BOTH
def test_an_aborted_request_ends_later_and_without_an_error(fake: Open, version: str) -> None:
    package = fake(version, step_seconds=0.02)

    async def ask() -> None:
        params = package.params(end_id=-1, max_tokens=500)
        answer = package.llm.generate_async([5, 6], params, streaming=True)
        await anext(answer)
        answer.abort()
        assert answer.aborted()
        assert not answer.finished
        await soon(answer.aresult())
        assert answer.outputs[0].finish_reason == "cancelled"

    asyncio.run(ask())


@BOTH
def test_after_an_error_an_answer_must_not_be_pulled_again(fake: Open, version: str) -> None:
    package = fake(version, scripts=[{"after": 7, "event": "error"}])

    async def ask() -> None:
        answer = package.llm.generate_async([7], warm(package.params), streaming=True)
        with pytest.raises(package.error):
            await soon(anext(answer))
        assert not answer.finished
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(answer), 0.3)

    asyncio.run(ask())


@BOTH
def test_after_a_fatal_error_all_else_hangs_or_is_told_so(fake: Open, version: str) -> None:
    package = fake(version, scripts=[{"after": 7, "event": "fatal"}], step_seconds=0.02)

    async def ask() -> None:
        params = package.params(end_id=-1, max_tokens=500)
        other = package.llm.generate_async([5, 6], params, streaming=True)
        fatal = package.llm.generate_async([7], warm(package.params), streaming=True)
        with pytest.raises(RuntimeError, match="scripted error of the executor") as error:
            await soon(anext(fatal))
        assert not isinstance(error.value, package.error)
        with pytest.raises(RuntimeError, match="LLM is shutting down"):
            package.llm.generate_async([5], warm(package.params))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(other.aresult(), 0.5)

    asyncio.run(ask())


@BOTH
def test_a_stop_id_is_sent_and_then_cut_off_the_ids_so_far(fake: Open, version: str) -> None:
    package = fake(version, scripts=[{"after": 7, "ids": [50, 51]}])
    answer = package.llm.generate_async([7], warm(package.params, stop_token_ids=[51]))
    output = answer.result().outputs[0]
    assert (output.token_ids, output.finish_reason, output.stop_reason) == ([50], "stop", 51)


@pytest.mark.parametrize(
    ("version", "arguments", "ids"),
    [
        ("1.0.0", {"enable_trtllm_sampler": True}, [50]),
        ("1.0.0", {}, [50, EOS]),
        ("1.2.1", {"sampler_type": "TRTLLMSampler"}, [50]),
        ("1.2.1", {}, [50, EOS]),
        ("1.4.0rc1", {}, [50, EOS]),
    ],
)
def test_the_two_samplers_end_an_answer_differently(
    fake: Open, version: str, arguments: dict[str, Any], ids: list[int]
) -> None:
    package = fake(version, arguments, scripts=[{"after": 7, "ids": [50]}])
    answer = package.llm.generate_async([7], warm(package.params))
    assert answer.result().outputs[0].token_ids == ids


@pytest.mark.parametrize("version", ["1.0.0", "1.2.1"])
def test_the_sampler_in_torch_ignored_seeds(fake: Open, version: str) -> None:
    package = fake(version)
    texts = {
        tuple(
            package.llm.generate_async([5, 6], warm(package.params)).result().outputs[0].token_ids
        )
        for _ in range(3)
    }
    assert len(texts) > 1


def test_shutdown_may_block(fake: Open) -> None:
    package = fake("1.2.1", shutdown_blocks=True)
    closing = threading.Thread(target=package.llm.shutdown, daemon=True)
    closing.start()
    closing.join(0.5)
    assert closing.is_alive()


@pytest.mark.parametrize(("version", "asked"), [("1.0.0", 0), ("1.2.1", 0), ("1.4.0rc1", 1)])
def test_no_log_probability_is_none_or_the_chosen_one(fake: Open, version: str, asked: int) -> None:
    package = fake(version)
    answer = package.llm.generate_async([5], package.params(end_id=-1, logprobs=0, max_tokens=3))
    output = answer.result().outputs[0]
    assert [len(at) for at in output.logprobs] == [asked] * (3 if asked else 0)


@pytest.mark.parametrize(
    ("version", "given", "rejected"),
    [
        ("1.0.0", {"n": 2, "temperature": 0.5}, True),
        ("1.2.1", {"n": 2, "temperature": 0.5}, False),
        ("1.2.1", {"n": 2, "top_k": 1}, True),
        ("1.0.0", {"temperature": -1.0}, False),
        ("1.2.1", {"temperature": -1.0}, True),
        ("1.4.0rc1", {"top_p": 1.5}, True),
        ("1.2.1", {"n": 2, "best_of": 1, "top_k": 5}, True),
    ],
)
def test_what_is_checked_depends_on_the_release(
    fake: Open, version: str, given: dict[str, Any], rejected: bool
) -> None:
    params = fake(version).params
    with (
        pytest.raises(ValueError, match=r"Greedy|require|best_of")
        if rejected
        else (contextlib.nullcontext())
    ):
        params(**given)


@ALL
def test_a_prompt_that_is_too_long_is_one_of_two_errors(fake: Open, version: str) -> None:
    package = fake(version)
    kind = package.error if version == "1.4.0rc1" else ValueError
    with pytest.raises(kind, match="exceeds the maximum number of tokens"):
        package.llm.generate_async([5] * 9000, warm(package.params))


def test_a_late_release_has_no_sampler_in_c_plus_plus(fake: Open) -> None:
    with pytest.raises(ValueError, match="has been removed"):
        fake("1.4.0rc1", {"sampler_type": "TRTLLMSampler"})
