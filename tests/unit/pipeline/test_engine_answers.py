"""Texts behind the C++ backend, whose answers are known by their request's id alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.byte_tokenizer import ByteTokenizer
from trellis.ipc.stream_announcements import (
    FINISH_REASON,
    NUM_OUTPUT_TOKENS,
    Announcer,
    CountedPrompt,
    Notice,
)
from trellis.pipeline.decode import Detokenizer
from trellis.pipeline.engine_answers import EngineAnswers
from trellis.pipeline.model_settings import ModelSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A version folder in a repository."""
    made = tmp_path / "postprocessing" / "1"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def answers(folder: Path) -> Iterator[EngineAnswers]:
    settings = ModelSettings("postprocessing", folder, {}, {}, 4)
    made = EngineAnswers(Detokenizer.of(ByteTokenizer(), True), settings)
    yield made
    made.close()


@pytest.fixture
def announcer(folder: Path, answers: EngineAnswers) -> Announcer:
    return Announcer(folder.parent.parent)


def tokens(text: str, **more: Any) -> dict[str, np.ndarray]:
    """A response of one sequence."""
    ids = list(text.encode())
    arrays = {"TOKENS_BATCH": np.array(ids, np.int32).reshape(1, 1, -1)}
    return arrays | {name: np.array(value) for name, value in more.items()}


def test_a_response_without_an_id_is_a_whole_text(answers: EngineAnswers) -> None:
    assert answers.answer("", tokens("Hé")) == ("Hé", {})
    assert answers.answer("", tokens("Héllo", SEQUENCE_LENGTH=[[3]])) == ("Hé", {})


def test_chunks_of_an_announced_stream_join_inside_a_character(
    answers: EngineAnswers, announcer: Announcer
) -> None:
    announcer.announce([Notice("an id", True)])
    answers.begin_batch()
    halves = [{"TOKENS_BATCH": np.array([[[byte]]], np.int32)} for byte in "é".encode()]
    assert [answers.answer("an id", half)[0] for half in halves] == ["", "é"]


def test_sequences_and_prompts_of_one_id_are_streams_of_their_own(
    answers: EngineAnswers, announcer: Announcer
) -> None:
    announcer.announce([Notice("an id", True)])
    answers.begin_batch()
    first, second = "é".encode()
    for place in ({"SEQUENCE_INDEX": [[1]]}, {"BATCH_INDEX": [[1]]}, {}):
        more = {name: np.array(value) for name, value in place.items()}
        said = [
            answers.answer("an id", {"TOKENS_BATCH": np.array([[[byte]]]), **more})[0]
            for byte in (first, second)
        ]
        assert said == ["", "é"]


def test_an_id_used_again_starts_afresh(answers: EngineAnswers, announcer: Announcer) -> None:
    half = {"TOKENS_BATCH": np.array([[["é".encode()[0]]]], np.int32)}
    for _ in range(2):
        announcer.announce([Notice("an id", True)])
        answers.begin_batch()
        assert answers.answer("an id", half)[0] == ""
    assert answers.answer("an id", tokens("x"))[0] == "\ufffdx"  # one broken byte, not two


def test_beams_are_texts_of_one_answer(answers: EngineAnswers) -> None:
    beams = {
        "TOKENS_BATCH": np.array([[[104, 105, 0], [97, 98, 99]]], np.int32),
        "SEQUENCE_LENGTH": np.array([[2, 3]], np.int32),
    }
    text, told = answers.answer("an id", beams)
    assert isinstance(text, np.ndarray)
    assert text.tolist() == [[b"hi", b"abc"]]
    assert told == {}


def test_what_a_request_asked_to_be_told_is(answers: EngineAnswers, announcer: Announcer) -> None:
    asked = NUM_OUTPUT_TOKENS | FINISH_REASON
    counted = (CountedPrompt(tokens=3, in_front=0, max_tokens=2, ends=(0,)),)
    announcer.announce([Notice("an id", False, None, asked, counted)])
    answers.begin_batch()
    text, told = answers.answer("an id", tokens("hi"))
    assert text == "hi"
    assert told["NUM_OUTPUT_TOKENS"].tolist() == [[2]]
    assert told["FINISH_REASON"].tolist() == [[b"length"]]


def test_where_nobody_announces_it_is_said_once(
    answers: EngineAnswers, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        answers.answer("x" * 100, tokens("a"))
    assert caplog.text.count("no notice of new streams came") == 1
