# SPDX-License-Identifier: Apache-2.0
"""A panic in a tokenizer's library fails the one request that met it, with one line of log."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from support.fake_triton import InferenceResponse
from support.panicking import write_panicking
from trellis.errors import RequestError, one_line
from trellis.ipc.heartbeats import heartbeats
from trellis.panics import Panicked, guarded, is_panic
from trellis.pipeline.decode import Detokenizer
from trellis.pipeline.encode import Preprocessor, Stop
from trellis.pipeline.model_settings import ModelSettings
from trellis.pipeline.stop_strings import StopMatcher
from trellis.pipeline.streams import StreamTable
from trellis.tokenizers import Tokenizer, TokenizerError, load

PARAMETERS = {"tokenizer_type": "auto"}
OUTPUTS = {
    "INPUT_ID": "TYPE_INT32",
    "REQUEST_INPUT_LEN": "TYPE_INT32",
    "REQUEST_OUTPUT_LEN": "TYPE_INT32",
    "BAD_WORDS_IDS": "TYPE_INT32",
}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return load("auto", write_panicking(tmp_path / "tokenizer"))


@pytest.fixture
def preprocessor(tmp_path: Path, tokenizer: Tokenizer) -> Preprocessor:
    return Preprocessor(ModelSettings("preprocessing", tmp_path, PARAMETERS, OUTPUTS, 4), tokenizer)


def test_the_library_panics_with_what_is_no_exception(tokenizer: Tokenizer) -> None:
    with pytest.raises(BaseException, match="index out of bounds") as caught:
        tokenizer.encode("q")
    assert is_panic(caught.value)
    assert not isinstance(caught.value, Exception)
    with pytest.raises(BaseException, match="index out of bounds"):
        tokenizer.decode(tokenizer.encode("z"))


def test_a_panic_is_an_error_and_all_else_stays_what_it_is(tokenizer: Tokenizer) -> None:
    with pytest.raises(Panicked, match="the tokenizer's library panicked: index out of bounds"):
        guarded(tokenizer.encode, "q")
    assert guarded(tokenizer.encode, "ab") == tokenizer.encode("ab")
    for error in (KeyboardInterrupt(), SystemExit(3), KeyError("x"), RequestError("a: b")):

        def fails(raised: BaseException = error) -> None:
            raise raised

        with pytest.raises(type(error)) as caught:
            guarded(fails)
        assert caught.value is error


def test_of_a_batch_the_one_prompt_fails_that_panics(
    preprocessor: Preprocessor, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"prompt {number}" for number in range(12)]
    with caplog.at_level(logging.INFO):
        rows = preprocessor.encode([*texts[:6], "q", *texts[6:]])
    bad = rows.pop(6)
    assert isinstance(bad, Panicked)
    assert rows == [preprocessor.tokenizer.encode(text) for text in texts]
    (record,) = caplog.records
    assert record.exc_info is None
    assert record.getMessage().startswith("a prompt could not be encoded: the tokenizer's library")
    prompts = preprocessor.read({"QUERY": np.array([[b"q"]]), "REQUEST_OUTPUT_LEN": ONE}, str)
    with pytest.raises(RequestError, match=r"text_input: the tokenizer failed: .* panicked"):
        preprocessor.outputs(prompts, [bad])


ONE = np.array([[1]], np.int32)


def test_a_word_that_panics_fails_its_request(preprocessor: Preprocessor) -> None:
    arrays = {
        "QUERY": np.array([[b"ab"]]),
        "REQUEST_OUTPUT_LEN": ONE,
        "BAD_WORDS_DICT": np.array([[b"q"]]),
    }
    prompts = preprocessor.read(arrays, str)
    assert not isinstance(prompts, Stop)
    with pytest.raises(Panicked):
        preprocessor.outputs(prompts, preprocessor.encode(prompts.texts))


def test_an_answer_that_panics_raises_an_error(tokenizer: Tokenizer) -> None:
    detokenizer, bad = Detokenizer.of(tokenizer), tokenizer.encode("z")
    with pytest.raises(Panicked):
        detokenizer.whole(bad)
    with pytest.raises(Panicked):
        detokenizer.whole(bad, skip_special_tokens=False)
    assert detokenizer.whole(tokenizer.encode("ab")) == "ab"


class PanickingStream:
    """A stream decoder of an outsider's type that asks the library for each chunk."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def push(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids)

    def end(self) -> str:
        return self._tokenizer.decode([])

    def prime(self, ids: list[int]) -> None:
        self._tokenizer.decode(ids)


def test_a_stream_that_panics_is_forgotten_and_the_others_go_on(tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer.decode, lambda *_: PanickingStream(tokenizer))
    streams = StreamTable(detokenizer)
    good, bad = tokenizer.encode("ab"), tokenizer.encode("z")
    assert streams.decode(1, good, False) == "ab"
    assert streams.decode(2, good, False) == "ab"
    with pytest.raises(Panicked):
        streams.decode(1, bad, False)
    assert streams.counts([1, 2]) == [0, 1]
    assert streams.decode(2, good, False) == "ab"
    with pytest.raises(Panicked):
        streams.decode(2, good, True)  # at its end the library decodes nothing, and panics


def test_a_matcher_of_stop_words_raises_an_error(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = PanickingStream(load("auto", tmp_path / "tokenizer"))
    monkeypatch.setattr(tokenizer, "stream_decoder", lambda *_: stream)
    matcher = StopMatcher(tokenizer, ["stop"], 0)
    assert matcher.push(tokenizer.encode("a")) == tokenizer.encode("a")
    with pytest.raises(Panicked):
        matcher.push(tokenizer.encode("z"))


def test_a_tokenizer_that_panics_as_it_is_loaded_is_named(tmp_path: Path) -> None:
    folder = write_panicking(tmp_path / "tokenizer")
    document = json.loads((folder / "tokenizer.json").read_text())
    document["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": ""}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    for kind in ("auto", "gpt2"):
        with pytest.raises(TokenizerError, match=f"{folder}: the tokenizer's library panicked"):
            load(kind, folder)


class Input:
    """A tensor of a request, as Triton's module has it."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array


class Request:
    """A request of Triton's to `postprocessing`."""

    def __init__(self, ids: list[int]) -> None:
        self._ids = ids

    def inputs(self) -> list[Input]:
        return [Input("TOKENS_BATCH", np.array([[self._ids]], np.int32))]


def test_postprocessing_answers_the_others_of_a_batch(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    from trellis.triton_models.postprocessing import TritonPythonModel

    model = TritonPythonModel()
    model.heartbeat = heartbeats().row(0)
    model.detokenizer = Detokenizer.of(tokenizer)
    model.streams = StreamTable(model.detokenizer)
    model.engine_answers = None
    good, bad = tokenizer.encode("ab"), tokenizer.encode("z")
    with caplog.at_level(logging.INFO):
        answers: list[InferenceResponse] = model.execute(
            [Request(good), Request(bad), Request(good)]
        )
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert [text.tolist() for text in (answers[0].array("OUTPUT"), answers[2].array("OUTPUT"))] == [
        [b"ab"],
        [b"ab"],
    ]
    error = answers[1].error
    assert error is not None
    assert "the tokens could not be decoded: the tokenizer's library panicked" in error.message
    (record,) = caplog.records
    assert record.exc_info is None


def test_a_line_of_log_is_one_and_short() -> None:
    assert one_line(ValueError("a\nb\x1b[2J\u2028c")) == "a\\nb\\x1b[2J\\u2028c"
    assert len(one_line("\n" * 10_000)) == 200
