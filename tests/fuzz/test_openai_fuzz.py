"""OpenAI's API under made-up requests: exact for those that are valid, an error for all others.

FUZZ_REQUESTS=10000 makes 2,000 valid requests and 10,000 invalid ones.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from fuzz.batches import batches
from fuzz.fuzzed_server import fuzzed_server
from fuzz.openai_bodies import VALID, Asked
from fuzz.openai_faults import (
    WRONG,
    Faulty,
    faulty,
    junk_in_messages,
    no_json,
    no_numbers,
    surrogates,
    twice,
    unknown_fields,
    wrong_http,
    wrong_values,
)
from fuzz.openai_judged import OpenAIJudge


@pytest.fixture(scope="module")
def judge(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenAIJudge]:
    with fuzzed_server(demo_engine, tmp_path_factory.mktemp("fuzz"), probed=False) as server:
        judging = OpenAIJudge(server)
        yield judging
    print("\nfuzz of OpenAI's API:", dict(judging.kinds))


@batches(VALID, 0.2)
def test_valid_requests_are_answered_alike_whole_and_streamed(
    judge: OpenAIJudge, batch: list[Asked]
) -> None:
    judge.valid(batch)


def test_every_wrong_value_of_every_field_is_named(judge: OpenAIJudge) -> None:
    judge.invalid([faulty("every wrong value", *each) for each in WRONG])


@batches(wrong_values() | junk_in_messages() | unknown_fields(), 0.5)
def test_fields_at_fault(judge: OpenAIJudge, batch: list[Faulty]) -> None:
    judge.invalid(batch)


@batches(st.one_of(no_json(), no_numbers(), surrogates(), twice()), 0.4)
def test_bodies_at_fault(judge: OpenAIJudge, batch: list[Faulty]) -> None:
    judge.invalid(batch)


@batches(wrong_http(), 0.1)
def test_what_is_not_there(judge: OpenAIJudge, batch: list[Any]) -> None:
    judge.invalid(batch)
