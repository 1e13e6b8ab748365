"""The memory of `postprocessing`, whatever clients do: never ending, abandoned, sharing an id."""

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trellis.pipeline.decode import Detokenizer
from trellis.pipeline.streams import StreamTable
from trellis.tokenizers import Tokenizer, load

LIMIT, QUIET = 5, 10.0
KEYS = st.integers(0, 12)


class Joined:
    """A decoder whose text is what it was given: one that lost its state shows it."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def push(self, ids: list[int]) -> str:
        self.seen += ids
        return " ".join(map(str, self.seen))

    def end(self) -> str:
        return "."


class Streams(RuleBasedStateMachine):
    """The table beside a model of it: what it keeps it keeps exactly, the rest starts afresh."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.number = 0
        self.table = StreamTable(Detokenizer(str, Joined), LIMIT, QUIET, clock=lambda: self.now)
        self.kept: dict[int, tuple[list[int], float]] = {}  # oldest use first

    @rule(key=KEYS, ended=st.booleans())
    def decode(self, key: int, ended: bool) -> None:
        self.number += 1
        ids, _ = self.kept.pop(key, ([], 0.0))
        ids = [*ids, self.number]
        text = " ".join(map(str, ids))
        assert self.table.decode(key, [self.number], ended) == text + "." * ended
        if ended:
            return
        self.kept[key] = (ids, self.now)
        while len(self.kept) > LIMIT:
            del self.kept[next(iter(self.kept))]
        while self.now - next(iter(self.kept.values()))[1] > QUIET:
            del self.kept[next(iter(self.kept))]

    @rule(keys=st.lists(KEYS, max_size=3))
    def drop(self, keys: list[int]) -> None:
        self.table.drop(keys)
        for key in keys:
            self.kept.pop(key, None)

    @precondition(lambda self: self.kept)
    @rule(seconds=st.floats(0, 2 * QUIET))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def bounded(self) -> None:
        assert len(self.table) == len(self.kept) <= LIMIT


Streams.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestStreams = Streams.TestCase


@pytest.fixture(scope="module")
def tokenizer(demo_engine: tuple[Path, Path]) -> Tokenizer:
    return load("gpt2", demo_engine[1])


def grown(table: StreamTable, feed: Callable[[], None]) -> int:
    """Bytes that are held more after `feed` than before."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    feed()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before


def test_an_abandoned_stream_costs_less_than_a_kilobyte(tokenizer: Tokenizer) -> None:
    table = StreamTable(Detokenizer.of(tokenizer))
    table.decode("first", [504], ended=False)

    def abandon() -> None:
        for number in range(20_000):
            key = (number.to_bytes(16, "big"), number, 0, 0, 0, 0)  # as of TensorRT-LLM's engine
            table.decode(key, [504, 3575], ended=False)

    assert 0 < grown(table, abandon) < 20_000 * 1024
    assert len(table) == 20_001


@pytest.mark.parametrize("keys", [1, 7])
def test_streams_that_never_end_and_ids_that_collide_do_not_grow(
    tokenizer: Tokenizer, keys: int
) -> None:
    table = StreamTable(Detokenizer.of(tokenizer))
    for number in range(1000):
        table.decode(number % keys, [number], ended=False)

    def go_on() -> None:
        for number in range(100_000):
            table.decode(number % keys, [number % 1000], ended=False)

    assert grown(table, go_on) < 64 * 1024
    assert len(table) == keys
