"""Hooks in the way of a prompt and of an answer: what they are given, and what goes wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.paths import ROOT
from trellis.errors import RequestError
from trellis.pipeline.decode import Detokenizer, failure
from trellis.pipeline.encode import Preprocessor
from trellis.pipeline.hooks import (
    FILE,
    WHOLE_ONLY,
    HookError,
    Hooks,
    check_file,
    load_hooks,
    needs_whole_answers,
)
from trellis.pipeline.model_settings import ModelSettings
from trellis.pipeline.streams import StreamTable
from trellis.tokenizers import Tokenizer

EXAMPLE = ROOT / "examples" / "hooks.py"


class Bytes(Tokenizer):
    """Every byte is a token."""

    vocab_size = 256
    eos_id = 0

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])


def written(folder: Path, text: str) -> Path:
    """A version folder with these hooks."""
    (folder / FILE).parent.mkdir(parents=True)
    (folder / FILE).write_text(text)
    return folder


def hooks_of(folder: Path, text: str) -> Hooks:
    return load_hooks(written(folder, text))


def preprocessor(folder: Path, **parameters: str) -> Preprocessor:
    outputs = dict.fromkeys(("INPUT_ID", "REQUEST_INPUT_LEN"), "TYPE_INT32")
    return Preprocessor(ModelSettings("preprocessing", folder, parameters, outputs, 4), Bytes())


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert load_hooks(tmp_path) == Hooks()
    assert not needs_whole_answers(tmp_path)


def test_a_prompt_is_encoded_as_its_hook_has_it(tmp_path: Path) -> None:
    reading = preprocessor(written(tmp_path, "def prompt(text): return text.upper() + '!'"))
    sent = {
        "QUERY": np.array([[b"ab"], [b"c"]], np.object_),
        "REQUEST_OUTPUT_LEN": np.array([[4], [4]], np.int32),
    }
    prompts: Any = reading.read(sent, str)
    made = reading.outputs(prompts, reading.encode(prompts.texts))
    assert made.columns["REQUEST_INPUT_LEN"] == [3, 2]
    assert bytes(made.arrays["INPUT_ID"][0].tolist()) == b"AB!"


BAD = """
def prompt(text):
    if text == "exit":
        raise SystemExit(1)
    if text == "none":
        return None
    if text == "half":
        return "\\ud800"
    return str(1 / text.count("a"))
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b", "text_input: hooks.py: prompt raised ZeroDivisionError: division by zero"),
        ("exit", "text_input: hooks.py: prompt raised SystemExit: 1"),
        ("none", "text_input: hooks.py: prompt returned NoneType; return str"),
        ("half", "text_input: hooks.py: prompt returned what is no UTF-8: surrogates not allowed"),
    ],
)
def test_a_prompt_hook_that_fails_is_named_and_the_others_of_the_batch_go_on(
    tmp_path: Path, text: str, message: str
) -> None:
    reading = preprocessor(written(tmp_path, BAD))
    first, bad, last = reading.encode(["a", text, "aa"])
    assert (first, last) == (list(b"1.0"), list(b"0.5"))
    with pytest.raises(RequestError) as caught:
        reading.limits.check_ids(bad)
    assert str(caught.value) == message


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Detokenizer:
    hooks = hooks_of(tmp_path_factory.mktemp("example"), EXAMPLE.read_text())
    return Detokenizer.of(Bytes(), hooks=hooks)


PIECES = st.lists(
    st.one_of(st.sampled_from(["Paris", "Par", "is", "P", "PPar", "ris", ""]), st.text(max_size=5)),
    min_size=1,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(PIECES, st.lists(st.integers(0, 100)))
def test_the_chunks_of_a_class_joined_are_what_it_makes_of_the_whole(
    example: Detokenizer, pieces: list[str], cuts: list[int]
) -> None:
    """However the ids are cut; the table of streams goes the same way."""
    text = "".join(pieces)
    ids = list(text.encode())
    whole = example.whole(ids)
    assert whole == text.replace("Paris", "*****")
    table = StreamTable(example)
    places = sorted({0, *(cut % (len(ids) + 1) for cut in cuts)})
    parts = [ids[a:b] for a, b in zip(places, [*places[1:], len(ids)], strict=True)]
    sequence = example.sequence()
    ends = [at == len(parts) - 1 for at in range(len(parts))]
    chunks = [sequence.add(part, end) for part, end in zip(parts, ends, strict=True)]
    assert "".join(chunks) == whole
    assert [table.decode(1, part, end) for part, end in zip(parts, ends, strict=True)] == chunks
    assert len(table) == 0


def test_a_stop_word_is_cut_off_before_a_hook_sees_the_text(tmp_path: Path) -> None:
    made = Detokenizer.of(Bytes(), hooks=hooks_of(tmp_path, "def answer(text): return f'<{text}>'"))
    assert made.whole(list(b"one stop"), cut=4) == "<one >"
    assert made.sequence().add(list(b"one stop"), ended=True, cut=4) == "<one >"


def test_a_class_without_an_end_keeps_nothing(tmp_path: Path) -> None:
    text = "class Answer:\n    def push(self, text): return text.upper()\n"
    hooks = hooks_of(tmp_path, text)
    assert not hooks.has_end
    assert hooks.no_streams("TensorRT-LLM 1.x") == ""
    assert Detokenizer.of(Bytes(), hooks=hooks).whole(list(b"ab")) == "AB"


def test_every_sequence_has_an_answer_of_its_own(tmp_path: Path) -> None:
    text = """
class Answer:
    count = 0
    def push(self, text):
        self.count += 1
        return f"{self.count}"
    def end(self):
        return "."
"""
    table = StreamTable(Detokenizer.of(Bytes(), hooks=hooks_of(tmp_path, text)))
    assert [table.decode(key, [65], False) for key in (1, 2, 1)] == ["1", "1", "2"]
    assert table.decode(2, [65], True) == "2."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def answer(text): return 1 / 0", "answer raised ZeroDivisionError: division by zero"),
        ("def answer(text): return b''", "answer returned bytes; return str"),
        ("class Answer:\n def __init__(self): [][0]\n def push(self, t): pass",
         "Answer raised IndexError: list index out of range"),
        ("class Answer:\n def push(self, t): pass", "Answer.push returned NoneType; return str"),
        ("class Answer:\n def push(self, t): return t\n def end(self): return 7",
         "Answer.end returned int; return str"),
    ],
)  # fmt: skip
def test_an_answers_hook_that_fails_is_named(tmp_path: Path, text: str, message: str) -> None:
    made = Detokenizer.of(Bytes(), hooks=hooks_of(tmp_path, text))
    with pytest.raises(HookError) as caught:
        made.whole([65])
    assert failure(caught.value) == f"hooks.py: {message}"
    table = StreamTable(made)
    with pytest.raises(HookError, match=message):
        table.decode(1, [65], ended=True)
    assert len(table) == 0


def test_a_function_needs_whole_answers(tmp_path: Path) -> None:
    hooks = hooks_of(tmp_path, "def answer(text): return text")
    assert needs_whole_answers(tmp_path)
    assert hooks.no_streams() == hooks.no_streams("TensorRT-LLM 1.x") == WHOLE_ONLY
    assert WHOLE_ONLY.startswith("stream: hooks.py has answer(text)")


def test_a_class_with_an_end_needs_an_engine_that_says_which_chunk_is_the_last(
    tmp_path: Path,
) -> None:
    hooks = hooks_of(tmp_path, EXAMPLE.read_text())
    assert not needs_whole_answers(tmp_path)
    assert hooks.no_streams() == ""
    assert hooks.no_streams("TensorRT-LLM 1.x").startswith("stream: hooks.py has Answer.end()")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "needs prompt(text), and answer(text) or a class Answer, or one"),
        ("class Answer: pass\ndef answer(text): pass", "leave one out"),
        ("def prompt(text)", "expected ':'"),
        ("def other():\n    prompt = 1", "needs prompt(text)"),
        ("\x00", "null bytes"),
    ],
)
def test_a_file_without_hooks_is_rejected_before_it_runs(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "my.py"
    file.write_text(text)
    with pytest.raises(HookError) as caught:
        check_file(file)
    assert str(caught.value).startswith(f"HOOKS={file}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "from re import escape as prompt",
        "import os\nif os.name:\n    def answer(text): return text",
        "try:\n    from mine import Answer\nexcept ImportError:\n    class Answer: ...",
        "raise ImportError  # `make check` says it\nprompt = str",
    ],
)
def test_names_count_however_they_are_bound(tmp_path: Path, text: str) -> None:
    file = tmp_path / "my.py"
    file.write_text(text)
    check_file(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package\nprompt = str", "cannot be imported: ModuleNotFoundError: No mod"),
        ("import sys\nsys.exit(3)\nprompt = str", "cannot be imported: SystemExit: 3"),
        ("prompt = 7", "prompt cannot be called"),
        ("class Answer: ...", "Answer has no push(text)"),
        ("prompt = str\ndel prompt", "needs prompt(text)"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_when_it_is_loaded(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(HookError) as caught:
        hooks_of(tmp_path, text)
    assert str(caught.value).startswith("hooks.py: ")
    assert message in str(caught.value)
