# SPDX-License-Identifier: Apache-2.0
"""The adapter for libraries that schedule by themselves, over one that answers by a script."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

from trellis.engine_host.engines import async_engine
from trellis.engine_host.engines.async_engine import AsyncEngine, Events, LibraryDied
from trellis.engine_host.engines.engine import Failure, Figures, Progress, Sampling
from trellis.errors import RequestError

WAIT = 5.0


class Scripted:
    """Answers each prompt with its own ids, one a step; some ids mean something else."""

    DIE, FAIL, REJECT, HANG, TOO_LARGE = 901, 902, 903, 904, 1000

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {"vocab_size": 1000}
        self.steps = 0
        self.first: list[tuple[Sampling, int]] = []  # before any client's, and how many ran then
        self.running = 0
        self.types: list[type] = []
        self.dropped: list[int] = []
        self.ended = 0
        self.dead = ""
        self.guide_error: Exception | None = None
        self.closed = threading.Event()

    async def prepare(self) -> None:
        self.prepared = threading.current_thread().name

    def check(self, ids: list[int], sampling: Sampling) -> None:
        self.types += map(type, ids)
        if max(ids) >= self.TOO_LARGE:
            raise RequestError("text_input: has a token id outside of the vocabulary")

    async def generate(self, key: int, ids: list[int], sampling: Sampling) -> AsyncIterator[Events]:
        if key < 0:
            async for events in self.begin(key, sampling):
                yield events
            return
        done = False
        try:
            for at, token in enumerate(ids):
                await asyncio.sleep(0)
                if token == self.DIE:
                    raise LibraryDied("its core is gone")
                if token == self.FAIL:
                    raise ValueError("no such layer")
                if token == self.REJECT:
                    raise RequestError("max_tokens: too many")
                if token == self.HANG:
                    await asyncio.sleep(60)
                last = at == len(ids) - 1
                yield [
                    Progress(key, sequence, [token], "stop" if last else None, [], 0.0)
                    for sequence in range(sampling.sequences)
                ]
            done = True
        finally:
            if done:
                self.ended += 1
            else:
                self.dropped.append(key)

    async def begin(self, key: int, sampling: Sampling) -> AsyncIterator[Events]:
        self.running += 1
        await asyncio.sleep(0)
        self.first.append((sampling, self.running))
        self.running -= 1
        if sampling.guide_type and self.guide_error:
            raise self.guide_error
        yield [Progress(key, 0, [1], "length", [], 0.0)]

    def figures(self) -> Figures:
        asked = len(self.first) + self.ended
        return Figures(kv_cache_usage=0.5, prefix_queries=10 * asked, prefix_hits=asked)

    def why_dead(self) -> str:
        return self.dead

    def close(self) -> None:
        self.closed.set()


class Deaths:
    """What the engine's process would have ended for."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.came = threading.Event()

    def __call__(self, why: str) -> None:
        self.reasons.append(why)
        self.came.set()


@pytest.fixture
def library() -> Scripted:
    return Scripted()


@pytest.fixture
def deaths() -> Deaths:
    return Deaths()


@pytest.fixture
def engine(library: Scripted, deaths: Deaths) -> Iterator[AsyncEngine]:
    engine = AsyncEngine(library, deaths)
    yield engine
    engine.close()


def run(engine: AsyncEngine) -> Events:
    """All that comes until nothing runs."""
    events: Events = []
    end = time.monotonic() + WAIT
    while engine.busy:
        assert time.monotonic() < end, events
        events += engine.step()
    return events


def ids_of(events: Events, key: int, sequence: int = 0) -> list[int]:
    mine = [e for e in events if isinstance(e, Progress) and (e.key, e.sequence) == (key, sequence)]
    return [token for event in mine for token in event.ids]


def until(condition: Any) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_kinds_of_requests_run_before_the_first_clients(library: Scripted, deaths: Deaths) -> None:
    library.facts["adapters"] = ["french", "german"]
    AsyncEngine(library, deaths).close()
    kinds = [(each.sample, bool(each.guide_type), each.lora_name) for each, _ in library.first]
    plain, drawn, guided, adapted = (
        (False, False, ""),
        (True, False, ""),
        (False, True, ""),
        (False, False, "french"),
    )
    assert kinds == [plain, drawn, drawn, drawn, drawn, guided, adapted]
    assert max(running for _, running in library.first) > 1
    assert all(running == 1 for each, running in library.first if not each.sample)


def test_no_first_request_is_beyond_the_engines_limits(library: Scripted, deaths: Deaths) -> None:
    library.facts |= {"no_guides": "no tokenizer", "beam_width": 1}
    AsyncEngine(library, deaths).close()
    assert not [each for each, _ in library.first if each.guide_type]
    library.first.clear()
    library.facts["beam_width"] = 4
    AsyncEngine(library, deaths).close()
    assert [(each.beam_width, each.sample) for each, _ in library.first] == [(4, False)]


@pytest.mark.parametrize("error", [RequestError("guide: none"), ValueError("no such layer")])
def test_a_first_request_that_fails_is_logged_and_the_engine_serves(
    library: Scripted, deaths: Deaths, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    library.guide_error = error
    engine = AsyncEngine(library, deaths)
    engine.add(1, np.array([5, 6]), Sampling(max_tokens=2))
    assert ids_of(run(engine), 1) == [5, 6]
    engine.close()
    assert f"first requests failed: {error}" in caplog.text


def test_a_library_that_dies_of_its_first_requests_is_not_loaded(
    library: Scripted, deaths: Deaths
) -> None:
    library.guide_error = LibraryDied("its core is gone")
    with pytest.raises(RuntimeError, match="its core is gone"):
        AsyncEngine(library, deaths)


def test_the_figures_are_of_clients_requests(engine: AsyncEngine) -> None:
    assert engine.figures() == Figures(0.5, 0, 0, None)
    engine.add(1, np.array([5]), Sampling(max_tokens=1))
    run(engine)
    until(lambda: engine.figures().prefix_hits)
    assert engine.figures() == Figures(0.5, 10, 1, None)


def test_a_death_that_leaves_a_first_request_waiting_is_seen(
    library: Scripted, deaths: Deaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(key: int, sampling: Sampling) -> AsyncIterator[Events]:
        library.dead = "its worker is gone"
        await asyncio.sleep(60)
        yield []

    monkeypatch.setattr(library, "begin", wait)
    monkeypatch.setattr(async_engine, "LOOK_SECONDS", 0.05)
    with pytest.raises(RuntimeError, match="its worker is gone"):
        AsyncEngine(library, deaths)


def test_every_request_gets_its_own_ids_in_order(engine: AsyncEngine) -> None:
    prompts = {key: list(range(key, key + 20)) for key in range(1, 17)}
    for key, ids in prompts.items():
        engine.add(key, np.array(ids, np.int64), Sampling())
    events = run(engine)
    assert {key: ids_of(events, key) for key in prompts} == prompts


def test_a_library_is_prepared_on_the_loop_that_will_run_it(
    engine: AsyncEngine, library: Scripted
) -> None:
    assert library.prepared == "library"


def test_the_ids_are_pythons_own_numbers(engine: AsyncEngine, library: Scripted) -> None:
    """vLLM and the LLM API both refuse numpy's."""
    engine.add(1, np.array([3, 4], np.int64), Sampling())
    run(engine)
    assert library.types == [int, int]


def test_a_request_of_several_sequences_runs_until_all_have_ended(engine: AsyncEngine) -> None:
    engine.add(1, np.array([5, 6]), Sampling(num_return_sequences=3, sample=True))
    events = run(engine)
    assert [ids_of(events, 1, sequence) for sequence in range(3)] == [[5, 6]] * 3


@pytest.mark.parametrize(
    ("token", "failure"),
    [
        (Scripted.FAIL, Failure(1, "the engine failed: no such layer")),
        (Scripted.REJECT, Failure(1, "max_tokens: too many", rejected=True)),
    ],
)
def test_an_error_ends_one_request_and_no_other(
    engine: AsyncEngine, token: int, failure: Failure
) -> None:
    engine.add(1, np.array([7, token, 8]), Sampling())
    engine.add(2, np.array([9, 10, 11]), Sampling())
    events = run(engine)
    assert [e for e in events if isinstance(e, Failure)] == [failure]
    assert ids_of(events, 2) == [9, 10, 11]


def test_a_prompt_that_the_library_would_not_survive_never_reaches_it(engine: AsyncEngine) -> None:
    with pytest.raises(RequestError, match=r"^text_input"):
        engine.add(1, np.array([Scripted.TOO_LARGE]), Sampling())
    assert not engine.busy


def test_a_cancelled_request_is_dropped_in_the_library(
    engine: AsyncEngine, library: Scripted
) -> None:
    engine.add(1, np.array([4, Scripted.HANG, 5]), Sampling())
    until(lambda: ids_of(list(engine.step()), 1))
    engine.cancel(1)
    until(lambda: library.dropped == [1])
    assert not engine.busy
    assert list(engine.step()) == []


def test_a_cancelled_request_yields_nothing_that_was_already_there(engine: AsyncEngine) -> None:
    engine.add(1, np.array([4, 5, 6]), Sampling())
    time.sleep(0.1)
    engine.cancel(1)
    assert list(engine.step()) == []


def test_a_step_that_waits_returns_when_it_is_woken(engine: AsyncEngine) -> None:
    engine.add(1, np.array([Scripted.HANG]), Sampling())
    began = time.monotonic()
    threading.Timer(0.02, engine.wake).start()
    list(engine.step())
    assert time.monotonic() - began < 0.15


def test_the_end_of_the_library_is_seen_by_whoever_runs(
    engine: AsyncEngine, deaths: Deaths
) -> None:
    engine.add(1, np.array([Scripted.DIE]), Sampling())
    assert deaths.came.wait(WAIT)
    assert deaths.reasons == ["its core is gone"]


def test_the_end_of_the_library_is_seen_though_nothing_runs(
    engine: AsyncEngine, library: Scripted, deaths: Deaths
) -> None:
    library.dead = "its core was killed"
    assert deaths.came.wait(WAIT)
    assert deaths.reasons == ["its core was killed"]


def test_closing_drops_what_runs_and_then_ends_the_library(library: Scripted) -> None:
    engine = AsyncEngine(library, Deaths())
    engine.add(1, np.array([Scripted.HANG]), Sampling())
    time.sleep(0.05)
    engine.close()
    assert library.dropped == [1]
    assert library.closed.is_set()


def test_it_moves_while_idle_and_while_something_runs_by_the_library_alone(
    engine: AsyncEngine, library: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_engine, "LOOK_SECONDS", 0.01)
    before = engine.moves
    until(lambda: engine.moves > before)  # its event loop turns
    engine.add(1, np.array([5, Scripted.HANG]), Sampling())
    until(lambda: list(engine.step()))
    before = engine.moves
    for _ in range(3):
        assert not list(engine.step())  # returns, time after time, which proves nothing
    assert engine.moves == before
    library.steps += 1  # one that read a prompt, say
    assert engine.moves != before
