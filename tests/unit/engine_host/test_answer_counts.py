"""Token counts: each response has its own, so that those of a stream add up."""

from typing import Any

import numpy as np

from support.fake_triton import Outlet, Sender
from trellis.engine_host.engines.engine import Progress, Sampling
from trellis.engine_host.sequences import Row
from trellis.engine_host.triton_answers import TritonAnswer

COUNTS = frozenset(("num_input_tokens", "num_output_tokens"))
SEVERAL: dict[str, Any] = {"num_return_sequences": 2, "sample": True}


def answer_of(
    sender: Sender, rows: int = 1, streaming: bool = True, prefix: int = 0, **sampling: Any
) -> TritonAnswer:
    """An answer that counts, to prompts of 5 tokens."""
    made = [
        Row(row << 16, Sampling(max_tokens=9, **sampling), 5, [0] * prefix, lambda: None)
        for row in range(rows)
    ]
    return TritonAnswer(sender, Outlet(), made, streaming, COUNTS)


def feed(answer: TritonAnswer, row: int, sequence: int, ids: list[int], finish: Any = None) -> None:
    answer.feed(row, Progress(1, sequence, ids, finish, [], 0.0))


def counts(sender: Sender) -> list[Any]:
    arrays = [response.array("num_output_tokens") for response in sender.sent]
    assert all(array.dtype == np.int32 for array in arrays)
    return [array.tolist() for array in arrays]


def test_a_stream_counts_the_tokens_of_each_response() -> None:
    sender = Sender()
    answer = answer_of(sender, prefix=3)
    for ids, finish in (([1, 2], None), ([3], None), ([4, 5, 6], "length")):
        feed(answer, 0, 0, ids, finish)
        answer.flush()
    assert counts(sender) == [[[2]], [[1]], [[3]]]
    assert [r.array("num_input_tokens").tolist() for r in sender.sent] == [[[5]]] * 3


def test_every_sequence_of_a_stream_counts_its_own() -> None:
    sender = Sender()
    answer = answer_of(sender, rows=2, **SEVERAL)
    feed(answer, 0, 0, [1, 2])
    feed(answer, 0, 1, [1, 2, 3])
    feed(answer, 1, 1, [1])
    answer.flush()
    for row, sequence in np.ndindex(2, 2):
        feed(answer, row, sequence, [7], "length")
    answer.flush()
    assert counts(sender) == [[[2]], [[3]], [[1]], [[1]], [[1]], [[1]], [[1]]]


def test_a_whole_answer_counts_the_tokens_of_each_prompt() -> None:
    sender = Sender()
    answer = answer_of(sender, rows=2, streaming=False, **SEVERAL)
    for row, sequence, ids in ((0, 0, [1]), (0, 1, [1, 2]), (1, 0, [1]), (1, 1, [1])):
        feed(answer, row, sequence, ids, "length")
    answer.flush()
    assert counts(sender) == [[[3], [2]]]


def test_tokens_that_a_stop_holds_back_are_counted_once() -> None:
    sender = Sender()
    answer = answer_of(sender)
    feed(answer, 0, 0, [1, 2])
    answer.flush()
    answer.stop()
    answer.flush()
    assert counts(sender) == [[[2]], [[0]]]
