"""Which streams are dropped, told by the order in which chunks are decoded: never a live one."""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import given, settings

from trellis.engine_host.abandoned_streams import STILL_SECONDS, AbandonedStreams, Stream
from trellis.pipeline.decode import Detokenizer
from trellis.pipeline.streams import StreamTable

ROUND = 0.025


class Decoder:
    """Takes anything, says nothing."""

    def push(self, ids: list[int]) -> str:
        return ""

    def end(self) -> str:
        return ""


@dataclass
class Sent:
    """A stream as the engine host has it."""

    owner: int
    begun: int = 0
    sent: int = 0
    left: bool = False  # its client is gone: Triton passes nothing on any more


@dataclass
class Pipeline:
    """Triton's queue before `postprocessing`, which takes from it in order, and the judge."""

    streams: dict[int, Sent] = field(default_factory=dict)
    queue: deque[int] = field(default_factory=deque)
    table: StreamTable = field(
        default_factory=lambda: StreamTable(Detokenizer(str, Decoder), max_streams=8)
    )
    judge: AbandonedStreams = field(default_factory=AbandonedStreams)
    now: float = 100.0
    asked: list[int] | None = None
    dropped: set[Hashable] = field(default_factory=set)
    epoch: int = 0

    def begin(self, key: int) -> None:
        """A sender starts to send the next chunk of a stream."""
        stream = self.streams[key]
        if stream.begun == stream.sent:
            stream.begun += 1

    def send(self, key: int) -> None:
        """It is in the queue, if anybody reads it; then `send` returns."""
        stream = self.streams[key]
        if stream.begun > stream.sent:
            if not stream.left:
                self.queue.append(key)
            stream.sent += 1

    def decode(self, chunks: int) -> None:
        for _ in range(min(chunks, len(self.queue))):
            self.table.decode(self.queue.popleft(), [1], ended=False)

    def note(self) -> None:
        self.asked = self.judge.note(
            self.now, [Stream(key, s.owner, s.begun, s.sent) for key, s in self.streams.items()]
        )

    def answer(self, idle: bool = False, meanwhile: int = 0) -> None:
        """What `postprocessing` says now; `meanwhile` chunks are decoded while it counts."""
        if self.asked is not None:
            counts = self.table.counts(self.asked[:3])
            self.decode(meanwhile)
            counts += self.table.counts(self.asked[3:])
            source = (self.epoch, self.table.forgotten)
            self.dropped |= self.judge.judge(self.now, counts, source, idle)
            self.asked = None

    def round(self, idle: bool = False) -> None:
        self.now += ROUND
        self.note()
        self.answer(idle)

    def chunk(self, *keys: int) -> None:
        for key in keys:
            self.begin(key)
            self.send(key)


def pipeline(*owners: int) -> Pipeline:
    made = Pipeline()
    made.round()
    made.streams = {key: Sent(owner) for key, owner in enumerate(owners)}
    return made


def test_a_stream_that_others_overtook_is_dropped_soon() -> None:
    made = pipeline(0, 1)
    made.streams[0].left = True
    rounds = 0
    while not made.dropped:
        made.chunk(0, 1)
        made.decode(8)
        made.round()
        rounds += 1
    assert made.dropped == {0}
    assert rounds * ROUND < 0.4


def test_a_stream_that_never_got_a_chunk_through_is_dropped_too() -> None:
    made = pipeline(0)
    made.streams[0].left = True
    rounds = 0
    while not made.dropped:
        made.chunk(0)
        made.round(idle=True)
        rounds += 1
    assert made.dropped == {0}
    assert STILL_SECONDS <= rounds * ROUND < STILL_SECONDS + 0.5


def test_a_server_that_takes_nothing_is_no_rest() -> None:
    made = pipeline(0)
    made.chunk(0)  # in the queue, while the server does not run
    for _ in range(1000):
        made.round(idle=True)
    assert not made.dropped


def test_rounds_of_minutes_are_not_taken_for_rest_of_minutes() -> None:
    made = pipeline(0)
    for _ in range(4):
        made.chunk(0)  # in the queue, while nothing runs
        made.now += 300  # until the processes run again, and answer
        made.round(idle=True)
    assert not made.dropped


def test_silence_is_no_evidence() -> None:
    made = pipeline(0)
    made.chunk(0)
    for index in range(2000):
        made.now += ROUND
        made.note()
        if index % 15:
            made.answer(idle=True)
        else:
            made.judge.silence()
    assert not made.dropped


def test_a_backlog_of_minutes_is_no_evidence() -> None:
    """Every stream late by thousands of chunks, and all alive."""
    made = pipeline(*range(64))
    for _ in range(400):
        made.chunk(*range(64))
        made.decode(32)  # half of what comes
        made.round()
    assert len(made.queue) > 10_000
    assert not made.dropped


def test_a_restarted_postprocessing_is_not_compared_with_the_one_before() -> None:
    made = pipeline(0, 1)
    for _ in range(10):
        made.chunk(0, 1)
        made.decode(2)
        made.round()
    made.table, made.epoch = StreamTable(Detokenizer(str, Decoder)), 1
    for _ in range(100):
        made.chunk(1)
        made.decode(2)
        made.round(idle=True)
    assert not made.dropped


def test_nothing_is_kept_of_streams_that_ended() -> None:
    made = pipeline(*range(1000))
    made.chunk(*range(1000))
    made.round()
    assert len(made.judge) == 1000
    made.streams = {}
    made.round()
    assert len(made.judge) == 0


KEYS = 6
some = st.sets(st.integers(0, KEYS - 1))


@dataclass
class Round:
    """What happens from one question to the next."""

    begin: set[int]
    send: set[int]
    decode: int
    seconds: float
    answer: str  # what becomes of the question
    meanwhile: int  # chunks decoded while it is answered
    event: str = ""
    key: int = 0
    times: int = 1


rounds = st.builds(
    Round,
    begin=some,
    send=some,
    decode=st.sampled_from([0, 0, 1, 1, 1, 2, 8]),
    seconds=st.sampled_from([ROUND, ROUND, 0.12, 0.4, 3.0]),
    answer=st.sampled_from(["prompt", "prompt", "prompt", "late", "none"]),
    meanwhile=st.integers(0, 3),
    event=st.sampled_from([""] * 40 + ["leave"] * 4 + ["restart", "crowd"]),
    key=st.integers(0, KEYS - 1),
    times=st.sampled_from([1, 1, 2, 5]),
)


def play(made: Pipeline, what: Round, left: set[int]) -> None:
    if what.event == "leave":
        left.add(made.streams[what.key].owner)
        for stream in made.streams.values():
            stream.left = stream.owner in left
    elif what.event == "restart":
        made.table, made.epoch = (
            StreamTable(Detokenizer(str, Decoder), max_streams=8),
            made.epoch + 1,
        )
    elif what.event == "crowd":  # others push one stream's state out
        for key in range(1000, 1003):
            made.table.decode(key, [1], ended=False)
    for key in what.begin:
        made.begin(key)
    made.now += what.seconds
    if what.answer != "late":
        made.note()
    for key in what.send:
        made.send(key)
    made.decode(what.decode)
    if what.answer == "none":
        made.judge.silence()
    else:
        made.answer(meanwhile=what.meanwhile)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(rounds, min_size=5, max_size=40),
    st.lists(st.integers(0, 3), min_size=KEYS, max_size=KEYS),
)
def test_whatever_happens_in_whatever_order_no_live_stream_is_dropped(
    story: list[Round], owners: list[int]
) -> None:
    made = pipeline(*owners)
    left: set[int] = set()
    for what in story:
        for _ in range(what.times):
            play(made, what, left)
            assert made.dropped <= left
