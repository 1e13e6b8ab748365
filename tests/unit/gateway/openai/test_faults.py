# SPDX-License-Identifier: Apache-2.0
"""Which of a body's faults is named, and that a large body's are found in no time."""

import json
import time
from typing import Any

import pytest

from trellis.gateway.limits import Limits
from trellis.gateway.openai.chat_fields import ChatRequest
from trellis.gateway.openai.completions import CompletionRequest
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.fields import Fields, read_fields
from trellis.gateway.openai.response_fields import ResponsesRequest

MODEL: dict[str, Any] = {"model": "ensemble"}
CHAT: dict[str, Any] = {**MODEL, "messages": [{"role": "user", "content": "Hi"}]}
SECONDS = 0.2  # a machine that is busy takes several times the 30 ms that these take at most


def rejected(kind: type[Fields], body: dict[str, Any] | bytes) -> OpenAIError:
    """Why a body is rejected."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(OpenAIError) as caught:
        read_fields(kind, data, Limits())
    return caught.value


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (5, "prompt"),
        ([{}], "prompt[0]"),
        (["a", 5], "prompt[1]"),
        ([1, "a"], "prompt[1]"),
        ([[1], [2, "a"]], "prompt[1][1]"),
        ([-1], "prompt[0]"),
        ([*["a"] * 12, 5], "prompt[12]"),
        (["a"] * 1025, "prompt"),
    ],
)
def test_of_a_prompt_s_kinds_the_one_that_fits_furthest_is_named(prompt: Any, param: str) -> None:
    assert rejected(CompletionRequest, {**MODEL, "prompt": prompt}).param == param


def test_a_list_that_is_too_long_says_how_long_it_may_be() -> None:
    error = rejected(ChatRequest, {**CHAT, "stop": ["a"] * 2000})
    assert error.message == "stop: too many items; send at most 1024"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CompletionRequest, {**MODEL, "prompt": ["a"] * 99_000}),
        (CompletionRequest, {**MODEL, "prompt": [1, "a"] * 49_000}),
        (ChatRequest, {**MODEL, "messages": [5] * 90_000}),
        (ChatRequest, {**MODEL, "messages": [{"role": "user", "content": [5] * 90_000}]}),
        (ChatRequest, {**CHAT, "stop": [1] * 99_000}),
        (ResponsesRequest, {**MODEL, "input": [5] * 90_000}),
        (ResponsesRequest, {**MODEL, "input": "Hi", "include": [5] * 90_000}),
    ],
)
def test_a_long_list_at_fault_holds_nobody_up(kind: type[Fields], body: dict[str, Any]) -> None:
    started = time.process_time()
    assert rejected(kind, body).status == 400
    assert time.process_time() - started < SECONDS


@pytest.mark.parametrize(
    ("name", "value"),
    [("tools", 0), ("store", 0), ("best_of", True), ("best_of", 1.0)],
)
def test_a_value_that_only_equals_a_neutral_one_is_rejected(name: str, value: Any) -> None:
    assert rejected(ChatRequest, {**CHAT, name: value}).param == name


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model": "a", "model": "a", "messages": []}', "model"),
        (b'{"model": "a", "messages": [{"role": "user", "role": "system"}]}', "role"),
    ],
)
def test_a_field_that_is_sent_twice_is_named(body: bytes, param: str) -> None:
    error = rejected(ChatRequest, body)
    assert (error.param, error.message) == (param, f"{param}: sent twice; send it once")


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        ({"a": 1}, "metadata.a"),
        ({str(at): "x" for at in range(17)}, "metadata"),
        ("x", "metadata"),
    ],
)
def test_metadata_are_a_few_texts(metadata: Any, param: str) -> None:
    assert rejected(ResponsesRequest, {**MODEL, "input": "Hi", "metadata": metadata}).param == param
