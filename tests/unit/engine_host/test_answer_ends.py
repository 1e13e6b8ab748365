"""Which ids end an answer, and what of it goes on: from a request's tensors to what is sent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.fake_triton import Outlet, Sender
from trellis.engine_host.engines.engine import Progress, Sampling
from trellis.engine_host.engines.process_messages import read_sampling as read_sent
from trellis.engine_host.engines.process_messages import sampling_values
from trellis.engine_host.sampling_inputs import read_sampling
from trellis.engine_host.sequences import Row, Sequence
from trellis.engine_host.triton_answers import TritonAnswer
from trellis.errors import RequestError
from trellis.pipeline.encode import Preprocessor
from trellis.pipeline.model_settings import ModelSettings
from trellis.pipeline.stop_strings import StopMatcher
from trellis.tokenizers import Tokenizer
from unit.pipeline.test_stop_strings import Pieces


def made(ids: list[int], finish: Any = None) -> Progress:
    return Progress(1, 0, ids, finish, [-0.5] * len(ids), 0.0)


IDS = st.lists(st.integers(0, 9), max_size=20)


@given(IDS, st.sets(st.integers(0, 9), max_size=4), st.integers(1, 5))
def test_an_answer_ends_before_the_first_of_its_ends_however_its_ids_come(
    ids: list[int], ends: set[int], step: int
) -> None:
    """An engine may know one of them, or none: the last ids then come with no reason, or length."""
    sequence = Sequence([], None)
    for start in range(0, len(ids), step):
        if not sequence.done:
            last = start + step >= len(ids)
            sequence.take(
                made(ids[start : start + step], "length" if last else None), frozenset(ends)
            )
    at = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    assert sequence.ids == ids[:at]
    assert sequence.total == len(sequence.log_probs) == at
    if ids:
        assert sequence.finish == ("stop" if at < len(ids) else "length")


def watched(pieces: list[str], words: list[str], ends: set[int]) -> tuple[str, Any]:
    """The text of ids 0, 1, 2 ... and why it ended."""
    vocabulary: Any = Pieces(pieces)
    sequence = Sequence([], StopMatcher(vocabulary, words))
    for token in range(len(pieces)):
        if not sequence.done:
            finish: Any = "stop" if token in ends else None
            sequence.take(made([token], finish), frozenset(ends))
    text = vocabulary.stream_decoder().push(sequence.ids)
    return text[: len(text) - sequence.cut], sequence.finish


def test_a_stop_word_may_end_with_the_id_that_ends_the_answer() -> None:
    assert watched(["a", "b", "<S>"], ["b<S>"], {2}) == ("a", "stop")
    assert watched(["a", "b", "<S>"], ["b<S>c"], {2}) == ("ab", "stop")
    assert watched(["a", "b", "cd"], ["bc"], {2}) == ("a", "stop")
    assert watched(["a", "b", "cd"], ["d"], {2}) == ("ab", "stop")  # the end id is no part of it
    assert watched(["a", "b", "cd"], ["x"], {2}) == ("ab", "stop")


def test_several_ends_are_read_checked_and_reach_the_engine() -> None:
    arrays = {
        "request_output_len": np.array([[4], [4]], np.int32),
        "end_id": np.array([[3], [-1]], np.int32),
        "stop_token_ids": np.array([[5, 3, -1], [-1, -1, -1]], np.int32),
    }
    first, second = (read_sampling(arrays, row, "an engine") for row in range(2))
    assert (first.end_ids, second.end_ids) == ((3, 5), ())
    assert read_sent(sampling_values(first)) == first
    arrays["stop_token_ids"][1, 1] = -2
    with pytest.raises(RequestError, match=r"^stop_token_ids: -2 is not in the vocabulary"):
        read_sampling(arrays, 1, "an engine")


@pytest.mark.parametrize(("step", "said"), [(True, [False]), (False, None)])
@pytest.mark.parametrize("streaming", [True, False])
def test_what_is_said_of_special_tokens_goes_on_to_postprocessing_alone(
    step: bool, said: list[bool] | None, streaming: bool
) -> None:
    sender = Sender()
    row = Row(1 << 16, Sampling(max_tokens=2), 1, [], lambda: None)
    answer = TritonAnswer(
        sender,
        Outlet(),
        [row],
        streaming,
        frozenset(),
        ensemble_step=step,
        skip_special_tokens=False,
    )
    answer.feed(0, made([1, 2], "length"))
    answer.flush()
    (response,) = sender.sent
    found = [t.array for t in response.output_tensors if t.name == "skip_special_tokens"]
    assert [array.reshape(-1).tolist() for array in found] == ([] if said is None else [said])


class Letters(Tokenizer):
    """Ten ids, three of which end an answer."""

    vocab_size = 10
    eos_id = 2
    more_end_ids = (7, 12, 8)  # 12: the engine has no such id

    def encode(self, text: str) -> list[int]:
        return [1] * len(text)

    def token_bytes(self, token: int) -> bytes:
        return b"%d" % token


def outputs(**arrays: Any) -> dict[str, Any]:
    """What `preprocessing` gives to a Python engine for two prompts."""
    names = {"INPUT_ID", "REQUEST_INPUT_LEN", "REQUEST_OUTPUT_LEN", "OUT_END_ID"}
    names |= {"OUT_STOP_TOKEN_IDS"}
    settings = ModelSettings(
        name="preprocessing",
        folder=Path(),
        parameters={"vocab_size": "10", "max_words": "4"},
        outputs=dict.fromkeys(names, "TYPE_INT32"),
        max_batch_size=4,
    )
    reading = Preprocessor(settings, Letters())
    sent = {
        "QUERY": np.array([[b"a"], [b"bc"]], np.object_),
        "REQUEST_OUTPUT_LEN": np.array([[4], [4]], np.int32),
        **{name: np.array(value, np.int32) for name, value in arrays.items()},
    }
    prompts: Any = reading.read(sent, lambda: "")
    given = reading.outputs(prompts, reading.encode(prompts.texts))
    stop = given.arrays.get("OUT_STOP_TOKEN_IDS")
    ends: dict[str, Any] = {"end": given.columns.get("OUT_END_ID")}
    return ends | ({} if stop is None else {"stop": stop.tolist()})


def test_without_an_end_id_all_of_the_tokenizers_end_an_answer() -> None:
    assert outputs() == {"end": [2, 2], "stop": [[7, 8], [7, 8]]}


def test_an_end_id_replaces_them_row_by_row() -> None:
    assert outputs(END_ID=[[5], [-1]]) == {"end": [5, -1]}


def test_stop_token_ids_are_added_to_either() -> None:
    assert outputs(STOP_TOKEN_IDS=[[8, 3], [2, 2]]) == {
        "end": [2, 2],
        "stop": [[7, 8, 3], [7, 8, -1]],
    }
    sent = {"END_ID": [[5], [-1]], "STOP_TOKEN_IDS": [[5, 5], [5, 6]]}
    assert outputs(**sent) == {"end": [5, -1], "stop": [[-1, -1], [5, 6]]}
    assert outputs(END_ID=[[5], [5]], STOP_TOKEN_IDS=[[5], [5]]) == {"end": [5, 5]}


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 2], [3, -1]], "stop_token_ids: -1 is not in the vocabulary; use 0 to 9"),
        ([[1], [10]], "stop_token_ids: 10 is not in the vocabulary; use 0 to 9"),
        ([[1, 2, 3, 4, 5]] * 2, "stop_token_ids: 5 ids; send at most 4 (max_words)"),
    ],
)
def test_wrong_ones_are_named(ids: list[list[int]], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        outputs(STOP_TOKEN_IDS=ids)
    assert str(caught.value) == message


def test_a_token_beyond_the_engines_vocabulary_is_refused_by_its_letters() -> None:
    settings = ModelSettings(
        name="preprocessing",
        folder=Path(),
        parameters={"vocab_size": "8"},
        outputs=dict.fromkeys(("INPUT_ID", "REQUEST_INPUT_LEN"), "TYPE_INT32"),
        max_batch_size=4,
    )
    reading = Preprocessor(settings, Letters())
    sent = {
        "QUERY": np.array([[b"a"]], np.object_),
        "REQUEST_OUTPUT_LEN": np.array([[4]], np.int32),
    }
    prompts: Any = reading.read(sent, lambda: "")
    assert reading.outputs(prompts, [[1, 7]]).arrays["INPUT_ID"].tolist() == [[1, 7]]
    with pytest.raises(RequestError, match=r"text_input: '8' is the token 8, .* knows 0 to 7"):
        reading.outputs(prompts, [[1, 8]])
