"""`preprocessing`'s core: from a client's tensors to the engine's, or to a named error."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.byte_tokenizer import ByteTokenizer
from trellis.errors import RequestError
from trellis.pipeline.encode import Preprocessor, Stop
from trellis.pipeline.model_settings import ModelSettings
from trellis.pipeline.prompts import Prompts

INT = "TYPE_INT32"
ALL = {
    "INPUT_ID": INT,
    "REQUEST_INPUT_LEN": INT,
    "REQUEST_OUTPUT_LEN": INT,
    "OUT_END_ID": INT,
    "OUT_PAD_ID": INT,
    "OUT_STOP_TOKEN_IDS": INT,
    "BAD_WORDS_IDS": INT,
    "STOP_WORDS_IDS": INT,
    "EMBEDDING_BIAS": "TYPE_FP32",
    "stream_key": "TYPE_UINT64",
    "ensemble_step": "TYPE_BOOL",
}


class Several(ByteTokenizer):
    """It ends answers at three tokens; the engine may not have the last."""

    eos_id = 10
    end_ids = (10, 11, 255)


def preprocessor(
    folder: Path,
    tokenizer: ByteTokenizer | None = None,
    outputs: dict[str, str] = ALL,
    **parameters: str,
) -> Preprocessor:
    settings = ModelSettings("preprocessing", folder, parameters, outputs, 4)
    return Preprocessor(settings, tokenizer or ByteTokenizer())


def sent(*texts: bytes, **more: Any) -> dict[str, np.ndarray]:
    """The tensors of prompts that ask for four tokens each."""
    rows = len(texts)
    arrays: dict[str, np.ndarray] = {
        "QUERY": np.array(texts, np.object_).reshape(rows, 1),
        "REQUEST_OUTPUT_LEN": np.full((rows, 1), 4, np.int32),
    }
    return arrays | more


def ids(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.int32)


def words(*rows: list[str]) -> np.ndarray:
    return np.array([[word.encode() for word in row] for row in rows], np.object_)


def made(of: Preprocessor, arrays: dict[str, np.ndarray], request_id: str = "") -> dict[str, Any]:
    """What goes out, as lists."""
    prompts = of.read(arrays, lambda: request_id)
    assert isinstance(prompts, Prompts)
    outputs = of.outputs(prompts, of.encode(prompts.texts))
    return {name: array.tolist() for name, array in outputs.arrays.items()} | outputs.columns


def refused(of: Preprocessor, arrays: dict[str, np.ndarray]) -> str:
    with pytest.raises(RequestError) as caught:
        made(of, arrays)
    return str(caught.value)


def test_prompts_of_one_request_are_padded_to_the_longest(tmp_path: Path) -> None:
    out = made(preprocessor(tmp_path), sent(b"abc", b"d"))
    assert out["INPUT_ID"] == [list(b"abc"), [*b"d", 0, 0]]
    assert out["REQUEST_INPUT_LEN"] == [3, 1]
    assert out["REQUEST_OUTPUT_LEN"] == [4, 4]
    assert out["OUT_END_ID"] == [0, 0]
    assert out["ensemble_step"] == [True, True]
    first, second = out["stream_key"]
    assert first != second


def test_only_outputs_that_the_release_has_are_made(tmp_path: Path) -> None:
    few = {"INPUT_ID": INT, "REQUEST_INPUT_LEN": INT}
    arrays = sent(b"a", STOP_WORDS_DICT=words(["x"]), BAD_WORDS_DICT=words(["y"]))
    assert made(preprocessor(tmp_path, outputs=few), arrays).keys() == few.keys()


def test_word_lists_become_ids_and_the_places_where_each_ends(tmp_path: Path) -> None:
    arrays = sent(b"a", STOP_WORDS_DICT=words(["xy", "z"]), BAD_WORDS_DICT=words(["q"]))
    out = made(preprocessor(tmp_path), arrays)
    assert out["STOP_WORDS_IDS"] == [[[*b"xyz"], [2, 3, -1]]]
    assert out["BAD_WORDS_IDS"] == [[[*b"q"], [1]]]


def test_a_bias_is_added_to_every_id_that_spells_a_word(tmp_path: Path) -> None:
    arrays = sent(
        b"a",
        EMBEDDING_BIAS_WORDS=words(["ab", "b"]),
        EMBEDDING_BIAS_WEIGHTS=np.array([[1.5, 2.0]], np.float32),
    )
    (bias,) = made(preprocessor(tmp_path), arrays)["EMBEDDING_BIAS"]
    assert {token: weight for token, weight in enumerate(bias) if weight} == {97: 1.5, 98: 3.5}


def test_all_ends_of_the_tokenizer_end_an_answer_that_names_none(tmp_path: Path) -> None:
    of = preprocessor(tmp_path, Several(), vocab_size="200")
    out = made(of, sent(b"a"))
    assert out["OUT_END_ID"] == [10]
    assert out["OUT_STOP_TOKEN_IDS"] == [[11]]  # 255 is none of the engine's
    out = made(of, sent(b"a", END_ID=ids([7])))
    assert out["OUT_END_ID"] == [7]
    assert "OUT_STOP_TOKEN_IDS" not in out
    more = sent(b"a", b"b", STOP_TOKEN_IDS=ids([11, 12], [12, 13]))
    assert made(of, more)["OUT_STOP_TOKEN_IDS"] == [[11, 12, -1], [11, 12, 13]]


def test_ends_are_stop_words_where_the_engine_takes_one_id(tmp_path: Path) -> None:
    outputs = {name: kind for name, kind in ALL.items() if name != "OUT_STOP_TOKEN_IDS"}
    of = preprocessor(tmp_path, Several(), outputs, vocab_size="200")
    assert made(of, sent(b"a"))["STOP_WORDS_IDS"] == [[[11], [1]]]


def test_an_engine_that_ends_at_one_id_alone_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    preprocessor(tmp_path, Several(), {"INPUT_ID": INT})
    assert "ends an answer at one id; it goes on after [11, 255]" in caplog.text


def test_a_prompt_that_the_tokenizer_fails_on_is_its_own_error(tmp_path: Path) -> None:
    of = preprocessor(tmp_path)
    first, bad, last = of.encode(["a", "\a", "b"])
    assert (first, last) == ([*b"a"], [*b"b"])
    assert isinstance(bad, KeyError)
    assert refused(of, sent(b"\a")) == "text_input: the tokenizer failed: 'bell'"


def test_a_token_that_the_engine_lacks_is_named(tmp_path: Path) -> None:
    assert refused(preprocessor(tmp_path, vocab_size="100"), sent(b"az")) == (
        "text_input: 'z' is the token 122, which this engine does not have; it knows 0 to 99"
    )


def test_a_prompt_without_tokens_or_with_too_many_is_refused(tmp_path: Path) -> None:
    limited = preprocessor(tmp_path, max_input_len="3")
    assert refused(limited, sent(b"abcd")) == (
        "text_input: the prompt has 4 tokens, this engine takes at most 3 (max_input_len);"
        " shorten the prompt"
    )
    with pytest.raises(RequestError, match="text_input: the prompt has no tokens"):
        limited.limits.check_ids([])


def test_a_stop_needs_an_id_and_no_prompt(tmp_path: Path) -> None:
    of = preprocessor(tmp_path)
    stop = of.read({"STOP": np.array([[True]])}, lambda: "an id")
    assert stop == Stop(1, "an id")
    out = of.outputs(stop, [])
    assert out.arrays.keys() == {
        "INPUT_ID", "REQUEST_INPUT_LEN", "REQUEST_OUTPUT_LEN", "stream_key",
    }  # fmt: skip
    assert refused(of, {"STOP": np.array([[True]])}).startswith("stop: needs the id")
    assert refused(of, {"STOP": np.array([[True], [False]])}) == (
        "stop: the prompts of one request must share it"
    )


def test_an_id_that_is_no_text_is_refused(tmp_path: Path) -> None:
    def broken() -> str:
        return b"\xff".decode()

    with pytest.raises(RequestError, match="id: not valid UTF-8"):
        preprocessor(tmp_path).read({"STOP": np.array([[True]])}, broken)
