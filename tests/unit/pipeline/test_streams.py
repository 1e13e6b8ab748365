"""The table of streams: bounded, forgetful, and exact for those it keeps."""

from hypothesis import given
from hypothesis import strategies as st

from trellis.pipeline.decode import Detokenizer
from trellis.pipeline.streams import StreamTable


class Numbers:
    """A decoder whose text shows that it is one decoder: it counts what it was given."""

    def __init__(self) -> None:
        self.count = 0

    def push(self, ids: list[int]) -> str:
        self.count += len(ids)
        return f"{self.count},"

    def end(self) -> str:
        return "end"


def numbers() -> Detokenizer:
    return Detokenizer(str, Numbers)


def test_chunks_of_a_stream_share_a_decoder_until_it_ends() -> None:
    table = StreamTable(numbers())
    assert table.decode(1, [5, 5], ended=False) == "2,"
    assert table.decode(2, [5], ended=False) == "1,"
    assert table.decode(1, [5], ended=True) == "3,end"
    assert table.decode(1, [5], ended=True) == "1,end"  # the key again: afresh
    assert len(table) == 1


def test_a_stream_is_decoded_as_its_first_chunk_says() -> None:
    asked: list[tuple[bool, ...]] = []

    def decoder(*skip: bool) -> Numbers:
        asked.append(skip)
        return Numbers()

    table = StreamTable(Detokenizer(str, decoder))
    for skip in (False, True, None):
        assert table.decode(skip, [5], ended=False, skip_special_tokens=skip) == "1,"
        assert table.decode(skip, [5], ended=True, skip_special_tokens=skip) == "2,end"
    assert asked == [(False,), (True,), ()]


@given(st.lists(st.integers(0, 50)), st.integers(1, 8))
def test_never_more_than_its_limit(keys: list[int], limit: int) -> None:
    table = StreamTable(numbers(), max_streams=limit)
    for key in keys:
        table.decode(key, [1], ended=False)
        assert len(table) <= limit


def test_the_longest_quiet_goes_first() -> None:
    table = StreamTable(numbers(), max_streams=2)
    for key in (1, 2, 1, 3):
        table.decode(key, [1], ended=False)
    assert table.decode(1, [1], ended=True) == "3,end"
    assert table.decode(2, [1], ended=True) == "1,end"


def test_a_quiet_stream_is_forgotten() -> None:
    now = [0.0]
    table = StreamTable(numbers(), quiet_seconds=10, clock=lambda: now[0])
    table.decode(1, [1], ended=False)
    now[0] = 11.0
    table.decode(2, [1], ended=False)
    assert len(table) == 1
