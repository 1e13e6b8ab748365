# SPDX-License-Identifier: Apache-2.0
"""What becomes of fields that are no inputs: accepted from one list, or rejected with a hint."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import (
    TRITON_RESERVED_REQUEST_PARAMS,
    TRITON_RESERVED_REQUEST_PARAMS_PREFIX,
)

from support.ensemble_model import ensemble_model
from trellis.contract.accepted_fields import (
    ACCEPTED_FIELDS,
    OTHER_NAMES,
    RESERVED_KEYS,
    RESERVED_PREFIX,
)
from trellis.gateway.body import prepare
from trellis.gateway.limits import Limits
from trellis.gateway.models import Model
from trellis.gateway.refusals import Refusal
from trellis.ipc.disconnect_sender import PARAMETER

GOOD = {"text_input": "Hi", "max_tokens": 4}
TOKEN = "t" * 22


MODEL = ensemble_model()


def sent(body: dict[str, Any]) -> dict[str, Any]:
    """What Triton gets for a body, without the gateway's own parameter and id."""
    made = prepare(MODEL, json.dumps(body).encode(), TOKEN, Limits(), once=False)
    found: dict[str, Any] = json.loads(made.body)
    assert found.pop(PARAMETER) == found.pop("id") == TOKEN
    return found


def refusal(body: dict[str, Any]) -> str:
    """Why a body is rejected."""
    with pytest.raises(Refusal) as caught:
        sent(body)
    assert caught.value.status == 400
    return caught.value.message


IGNORED = [name for name, field in ACCEPTED_FIELDS.items() if not field.to]


@pytest.mark.parametrize("name", IGNORED)
@pytest.mark.parametrize("value", ["x", 5, True, None, {"a": [1]}])
def test_what_is_ignored_does_not_reach_triton(name: str, value: object) -> None:
    assert sent({**GOOD, name: value}) == GOOD
    assert sent({"text_input": "Hi", "parameters": {"max_tokens": 4, name: value}}) == GOOD


def test_an_accepted_field_says_what_becomes_of_it() -> None:
    for field in ACCEPTED_FIELDS.values():
        assert bool(field.to) != bool(field.why)
        assert field.to == "" or field.to in MODEL.fields
        assert field.name not in MODEL.fields


def test_max_completion_tokens_is_max_tokens() -> None:
    assert sent({"text_input": "Hi", "max_completion_tokens": 4}) == GOOD
    assert sent({"text_input": "Hi", "parameters": {"max_completion_tokens": 4}}) == GOOD
    assert sent({**GOOD, "max_completion_tokens": None}) == GOOD
    assert sent({"text_input": ["a", "b"], "max_completion_tokens": [1, 2]}) == {
        "text_input": ["a", "b"],
        "max_tokens": [1, 2],
    }
    assert refusal({"text_input": "Hi", "max_completion_tokens": "4"}).startswith("max_tokens: ")
    said = refusal({**GOOD, "max_completion_tokens": 4})
    assert said == "max_completion_tokens: means max_tokens, which is given, too; send one of them"


def test_the_id_stays_where_something_was_ignored() -> None:
    body = json.dumps({**GOOD, "id": "7", "user": "me"}).encode()
    assert prepare(MODEL, body, TOKEN, Limits(), once=False).request_id.client == "7"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *OTHER_NAMES.items(),
        ("maxTokens", "max_tokens"),
        ("max-tokens", "max_tokens"),
        ("MAX_TOKENS", "max_tokens"),
        ("Max Tokens", "max_tokens"),
        ("topK", "top_k"),
        ("top.p", "top_p"),
        ("textInput", "text_input"),
        ("stopWords", "stop_words"),
        ("steam", "stream"),
        ("maxNewTokens", "max_tokens"),
        ("stop-sequences", "stop_words"),
    ],
)
def test_another_spelling_is_rejected_with_the_name_that_is_meant(name: str, meant: str) -> None:
    said = refusal({**GOOD, name: 1})
    assert said == f"{name}: no input of ensemble; did you mean {meant}?"


def test_stop_words_under_the_name_of_other_servers_are_rejected_with_ours() -> None:
    for words in ("END", ["END"]):
        said = refusal({**GOOD, "stop": words})
        assert said == 'stop: "END" is not true or false; did you mean stop_words?'


def test_a_name_like_none_is_rejected_with_all_that_there_are() -> None:
    said = refusal({**GOOD, "zzz": 1})
    assert said.startswith("zzz: no input of ensemble; leave it out (it has text_input, ")


@given(st.text(min_size=65, max_size=300))
def test_no_error_repeats_more_than_64_characters(text: str) -> None:
    bodies: list[dict[str, Any]] = [
        {**GOOD, text: 1},
        {**GOOD, "parameters": {text: 1}},
        {**GOOD, "max_tokens": text},
        {**GOOD, "stream": text},
        {**GOOD, "text_input": [text, 5, text]},
    ]
    for body in bodies:
        said = refusal(body)
        assert not any(text[at : at + 65] in said for at in range(len(text) - 64))
    key = json.dumps(text).encode()
    twice = b'{%s: 1, %s: 1, "text_input": "Hi"}' % (key, key)
    with pytest.raises(Refusal) as caught:
        prepare(MODEL, twice, TOKEN, Limits(), once=False)
    assert text[:65] not in caught.value.message


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800"])
def test_an_id_with_half_a_character_is_rejected(text: str) -> None:
    assert refusal({**GOOD, "id": text}).startswith("id: \\u")
    assert "half of a surrogate pair" in refusal({**GOOD, "id": text})


def test_the_gateways_own_key_is_none_that_triton_reserves() -> None:
    assert frozenset(TRITON_RESERVED_REQUEST_PARAMS) == RESERVED_KEYS
    assert TRITON_RESERVED_REQUEST_PARAMS_PREFIX == RESERVED_PREFIX
    assert PARAMETER not in RESERVED_KEYS
    assert not PARAMETER.startswith(RESERVED_PREFIX)


def test_an_inner_model_is_asked_for_all_that_it_gives() -> None:
    """With the parameter that says who asks, an engine leaves its `sequence_length` out."""
    inner = Model("tensorrt_llm")
    sent = json.dumps({"input_ids": [1], "id": "mine", PARAMETER: "x"}).encode()
    made = prepare(inner, sent, TOKEN, Limits(), once=True)
    assert json.loads(made.body) == {"input_ids": [1], "id": TOKEN}
    assert made.request_id.client == "mine"
