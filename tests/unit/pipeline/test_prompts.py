"""What a request is refused for, always by the name that the client sent."""

from typing import Any

import numpy as np
import pytest

from trellis.errors import RequestError
from trellis.pipeline.limits import RequestLimits
from trellis.pipeline.prompts import Limits, read_prompts

LIMITS = Limits(vocab_size=100, max_prompt_bytes=8, request=RequestLimits())


def texts(*values: Any) -> np.ndarray:
    return np.array(values, np.object_).reshape(1, -1)


def sent(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    """A good request of one prompt, with other tensors."""
    good = {"QUERY": texts(b"Hi"), "REQUEST_OUTPUT_LEN": np.array([[4]], np.int32)}
    return good | arrays


BIAS = texts(b"a", b"b")
CASES: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "no prompt": ({"QUERY": texts()}, "text_input: missing; send the prompt"),
    "an empty one": ({"QUERY": texts(b"")}, "text_input: the prompt is empty; send some text"),
    "a long one": (
        {"QUERY": texts(b"123456789")},
        "text_input: the prompt has 9 bytes; send at most 8 (max_prompt_bytes)",
    ),
    "no UTF-8": ({"QUERY": texts(b"a\xff")}, "text_input: not valid UTF-8 at byte 1 "),
    "a decoder's prompt": (
        {"DECODER_QUERY": texts(b"x")},
        "decoder_text_input: this engine has no decoder prompt; leave it out",
    ),
    "no length": (
        {"REQUEST_OUTPUT_LEN": np.zeros((1, 0), np.int32)},
        "max_tokens: missing; send the number of tokens to generate",
    ),
    "nothing asked for": (
        {"REQUEST_OUTPUT_LEN": np.array([[0]], np.int32)},
        "max_tokens: 0 is not allowed; send 1 or more",
    ),
    "an end of no vocabulary": (
        {"END_ID": np.array([[100]], np.int32)},
        "end_id: 100 is not in the vocabulary; use 0 to 99, or -1 for none",
    ),
    "a stop of no vocabulary": (
        {"STOP_TOKEN_IDS": np.array([[5, -1]], np.int32)},
        "stop_token_ids: -1 is not in the vocabulary; use 0 to 99",
    ),
    "words that are no text": (
        {"STOP_WORDS_DICT": texts(b"\xff")},
        "stop_words: not valid UTF-8 at byte 0 ",
    ),
    "a bias without weights": (
        {"EMBEDDING_BIAS_WORDS": BIAS},
        "embedding_bias_weights: 0 weights for 2 embedding_bias_words; send one for each",
    ),
    "a bias that is no number": (
        {
            "EMBEDDING_BIAS_WORDS": BIAS,
            "EMBEDDING_BIAS_WEIGHTS": np.array([[1, np.nan]], np.float32),
        },
        "embedding_bias_weights: must be finite numbers",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_input_is_named(case: str) -> None:
    arrays, message = CASES[case]
    with pytest.raises(RequestError) as caught:
        read_prompts(sent(**arrays), LIMITS)
    assert str(caught.value).startswith(message)


def test_prompts_of_one_request_share_a_pad_id() -> None:
    arrays = {
        "QUERY": np.array([[b"a"], [b"b"]], np.object_),
        "REQUEST_OUTPUT_LEN": np.array([[4], [5]], np.int32),
        "PAD_ID": np.array([[1], [2]], np.int32),
    }
    with pytest.raises(RequestError, match=r"pad_id: .* must share it; got \[1, 2\]"):
        read_prompts(arrays, LIMITS)
    arrays["PAD_ID"][:] = 3
    prompts = read_prompts(arrays, LIMITS)
    assert (prompts.pad_id, prompts.max_tokens) == (3, [4, 5])


def test_what_is_empty_asks_for_nothing() -> None:
    nothing = {name: texts(b"") for name in ("STOP_WORDS_DICT", "EMBEDDING_BIAS_WORDS")}
    prompts = read_prompts(sent(**nothing), LIMITS)
    assert (prompts.stop_words, prompts.bias, prompts.end_ids) == ([], [], None)


def test_an_end_of_unsigned_numbers_is_none_as_minus_one_is() -> None:
    prompts = read_prompts(sent(END_ID=np.array([[2**32 - 1]], np.uint32)), LIMITS)
    assert prompts.end_ids == [-1]


def test_a_stop_id_counts_once_and_words_come_as_they_were_sent() -> None:
    arrays = sent(
        STOP_TOKEN_IDS=np.array([[5, 6, 5]], np.int32),
        EMBEDDING_BIAS_WORDS=texts(b"yes", b""),
        EMBEDDING_BIAS_WEIGHTS=np.array([[1.5, 0]], np.float32),
        BAD_WORDS_DICT=texts("말".encode(), "말"),
    )
    prompts = read_prompts(arrays, LIMITS)
    assert prompts.stop_token_ids == [[5, 6]]
    assert prompts.bias == [[("yes", 1.5)]]
    assert prompts.bad_words == [["말", "말"]]
