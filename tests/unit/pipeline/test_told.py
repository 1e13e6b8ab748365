"""What postprocessing tells of an answer beside TensorRT-LLM's own engine."""

import pytest

from trellis.ipc.stream_announcements import (
    FINISH_REASON,
    NUM_INPUT_TOKENS,
    NUM_OUTPUT_TOKENS,
    Begun,
    CountedPrompt,
)
from trellis.pipeline.told import told

ALL = NUM_INPUT_TOKENS | NUM_OUTPUT_TOKENS | FINISH_REASON
PROMPT = CountedPrompt(tokens=7, in_front=0, max_tokens=3, ends=(2, 9))


def begun(prompt: CountedPrompt = PROMPT, asked: int = ALL, cancelled: bool = False) -> Begun:
    return Begun(None, None, asked, (prompt,), cancelled)


@pytest.mark.parametrize(
    ("ids", "cancelled", "reason"),
    [
        ([5, 6], False, b"stop"),  # the end id is left out
        ([5, 6, 2], False, b"stop"),  # or not
        ([5, 6, 9], True, b"stop"),
        ([5, 6, 7], False, b"length"),
        ([5, 6, 7], True, b"length"),
        ([5], True, b"cancelled"),
        ([], False, b"stop"),
    ],
)
def test_an_answer_ended_by_its_end_its_length_or_a_stop(
    ids: list[int], cancelled: bool, reason: bytes
) -> None:
    tensors = told(begun(cancelled=cancelled), 0, [ids])
    assert tensors["FINISH_REASON"].tolist() == [[reason]]
    assert tensors["NUM_OUTPUT_TOKENS"].tolist() == [[len(ids)]]
    assert tensors["NUM_INPUT_TOKENS"].tolist() == [[7]]


def test_beams_are_counted_together_and_end_by_themselves() -> None:
    tensors = told(begun(), 0, [[5, 6, 7], [5]])
    assert tensors["NUM_OUTPUT_TOKENS"].tolist() == [[4]]
    assert tensors["FINISH_REASON"].tolist() == [[b"length", b"stop"]]


def test_a_prompt_in_front_is_not_counted() -> None:
    tensors = told(begun(PROMPT._replace(in_front=7)), 0, [[1] * 7 + [5]])
    assert tensors["NUM_OUTPUT_TOKENS"].tolist() == [[1]]
    assert tensors["FINISH_REASON"].tolist() == [[b"stop"]]


def test_only_what_was_asked_is_told() -> None:
    assert list(told(begun(asked=NUM_INPUT_TOKENS), 0, [[5]])) == ["NUM_INPUT_TOKENS"]
    assert told(begun(asked=0), 0, [[5]]) == {}
    assert told(begun(), 1, [[5]]) == {}  # a row that nobody announced
