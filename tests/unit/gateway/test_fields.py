"""What the gateway says of a body, field by field, and what it makes of a good one."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.ensemble_model import ensemble_config, ensemble_model
from support.hypothesis_profiles import examples
from trellis.gateway.body import prepare
from trellis.gateway.limits import Limits
from trellis.gateway.models import Model, read_model
from trellis.gateway.prepared import Prepared
from trellis.gateway.refusals import Refusal

INNER = "1f" * 16
OURS = {"trellis_client": INNER, "id": INNER}  # in every body that goes to Triton
GOOD = {"text_input": "Hi", "max_tokens": 4}


MODEL = ensemble_model()
BY_ID = ensemble_model("tensorrtllm")
TABLE = {"name": "table", "data_type": "TYPE_FP32", "dims": ["-1", "-1"]}
WITH_TABLE = read_model(
    {**ensemble_config(), "input": [*ensemble_config()["input"], TABLE]}, lambda _: {}
)


def read(body: bytes, model: Model = MODEL, once: bool = False) -> Prepared:
    return prepare(model, body, INNER, Limits(), once)


def refusal(body: bytes | dict[str, Any], model: Model = MODEL) -> str:
    """Why a body is refused, always with status 400."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refusal) as caught:
        read(sent, model)
    assert caught.value.status == 400
    return caught.value.message


def prepared(body: dict[str, Any], model: Model = MODEL) -> Any:
    """What goes to Triton."""
    return json.loads(read(json.dumps(body).encode(), model).body)


@pytest.mark.parametrize(
    ("sent", "said"),
    [({}, None), ({"skip_special_tokens": False}, False), ({"skip_special_tokens": [True]}, True)],
)
def test_what_a_body_says_of_special_tokens_is_known(
    sent: dict[str, Any], said: bool | None
) -> None:
    body = json.dumps({**GOOD, **sent}).encode()
    assert read(body).skip_special_tokens is said


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a string for a number": ({"max_tokens": "x"}, 'max_tokens: "x" is not a whole number'),
    "a fraction": ({"max_tokens": 4.7}, "max_tokens: 4.7 is not a whole number"),
    "a whole fraction": ({"max_tokens": 4.0}, "max_tokens: 4.0 is not a whole number"),
    "a boolean for a number": ({"top_k": True}, "top_k: true is not a whole number"),
    "null": ({"top_p": None}, "top_p: null is not a number; send a number, or leave"),
    "too large": ({"max_tokens": 2**31}, "max_tokens: 2147483648 is out of range"),
    "too small": ({"end_id": -(2**31) - 1}, "end_id: -2147483649 is out of range"),
    "below zero": ({"seed": -1}, "seed: -1 is out of range; send 0 to 18446744073709551615"),
    "beyond 64 bits": ({"seed": 2**64}, "seed: 18446744073709551616 is out of range"),
    "huge": ({"seed": 10**4000}, "seed: a larger number is out of range"),
    "too large a float": ({"temperature": 1e300}, "temperature: 1e+300 is out of range of FP32"),
    "a huge integer for a float": ({"top_p": 10**400}, "top_p: a larger number is out of range"),
    "a number for a boolean": ({"stream": 1}, "stream: 1 is not true or false"),
    "a number for a text": ({"text_input": 5}, "text_input: 5 is not a string"),
    "an object": ({"text_input": {"a": 1}}, "text_input: an object is not a string"),
    "one wrong word": ({"stop_words": ["x", 1]}, "stop_words: 1 is not a string"),
    "an end that is no number": (
        {"stop_token_ids": [5, "x"]},
        'stop_token_ids: "x" is not a whole number',
    ),
    "a number for a choice": ({"skip_special_tokens": 0}, "skip_special_tokens: 0 is not true or"),
    "an empty list": ({"stop_words": []}, "stop_words: the list is empty; leave the field out"),
    "lists in a list": ({"max_tokens": [[4]]}, "max_tokens: lists in a list"),
    "values for two": ({"max_tokens": [4, 4]}, "max_tokens: values for 2, but text_input has 1"),
    "a broken shape": ({"lora_config": [1, 2, 3, 4]}, "lora_config: 4 values; send a multiple"),
    "FP16": (
        {"lora_weights": [1.0]},
        "lora_weights: FP16 cannot be sent over HTTP; send it by gRPC",
    ),
    "mistyped": ({"max_tokns": 4}, "max_tokns: no input of ensemble; did you mean max_tokens?"),
    "unknown": ({"grammar": "x"}, "grammar: no input of ensemble; leave it out (it has text_input"),
    "mistyped, nested": ({"parameters": {"tempratur": 1}}, "tempratur: no input of ensemble; did"),
    "parameters that are none": ({"parameters": [1]}, "parameters: not an object"),
    "twice": ({"parameters": {"max_tokens": 3}}, "max_tokens: given at the top level and in"),
    "an id that is a number": ({"id": 7}, "id: not a string"),
    "an id among the parameters": ({"parameters": {"id": "7"}}, "id: goes to the top level"),
    "the server's own": ({"trellis_client": INNER}, "trellis_client: only the server sets this"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_named_with_what_to_do(case: str) -> None:
    change, message = WRONG[case]
    assert refusal({**GOOD, **change}).startswith(message)


NO_OBJECT = {
    b"": "the body is empty; send {",
    b"{": "the body is not JSON: Expecting property name",
    b"[1]": "the body is not a JSON object",
    b'{"text_input": "\xff"}': "the body is not valid UTF-8 at byte 16",
    b'{"text_input": "\xed\xa0\x80"}': "the body is not valid UTF-8 at byte 16",
    b'{"text_input": "\\ud800"}': "text_input: \\ud800 at character 0 is half of a surrogate",
    b'{"text_input": "x", "top_p": NaN}': "the body is not JSON: NaN is no number",
    b'{"text_input": "x", "top_p": 1e999}': "top_p: inf is out of range",
    b'{"text_input": "x"} x': "the body is not JSON: Extra data",
    b'{"text_input": "a", "text_input": "b"}': "text_input: given twice; send it once",
    b'{"text_input": "a", "text\\u005finput": "b"}': "text_input: given twice; send it once",
    b"{}": "text_input: missing; send the prompt",
    b'{"max_tokens": 4}': "text_input: missing; send the prompt",
    b"[" * 200_000: "the body is nested too deeply",
    b'{"text_input":' * 200_000: "the body is nested too deeply",
    b'{"max_tokens": ' + b"9" * 5000 + b"}": "the body is not JSON: a number has too many digits",
}


@pytest.mark.parametrize("body", NO_OBJECT, ids=lambda body: body[:20])
def test_what_is_no_request_is_said_to_be_none(body: bytes) -> None:
    assert refusal(body).startswith(NO_OBJECT[body])


RIGHT: dict[str, dict[str, Any]] = {
    "integers for floats": {"temperature": 1, "top_p": 0},
    "limits": {"seed": 2**64 - 1, "end_id": -1, "max_tokens": 2**31 - 1},
    "the largest float": {"temperature": 3.4028234e38},
    "lists of one": {"max_tokens": [4], "stream": [False]},
    "words": {"stop_words": ["a", "b"], "bad_words": "c"},
    "a batch": {"text_input": ["a", "b"], "max_tokens": [4, 5], "top_p": [0.5, 1]},
    "nested": {"parameters": {"top_k": 3, "seed": 1}},
    "an empty prompt": {"text_input": ""},
    "text": {"text_input": '안녕 "quoted" \\ \n \u0000 😀'},
    "an id": {"id": "mine"},
}


@pytest.mark.parametrize("case", RIGHT)
def test_a_right_body_is_written_anew_with_an_id_of_ours(case: str) -> None:
    body = {**GOOD, **RIGHT[case]}
    nested: Any = body.pop("parameters", {})
    assert prepared({**GOOD, **RIGHT[case]}) == {**body, **nested, **OURS}


def test_what_goes_on_is_the_same_in_json_of_ours() -> None:
    body = b'\xef\xbb\xbf \n{ "text_input" : "\\u00e9\\ud83d\\ude00", "top_p":1.0E0 }\t'
    sent = read(body).body
    assert sent.isascii()
    assert b" " not in sent
    assert json.loads(sent) == {"text_input": "é😀", "top_p": 1.0, **OURS}


def test_words_for_several_prompts_are_refused_by_name() -> None:
    body = {"text_input": ["a", "b"], "max_tokens": [4, 4], "stop_words": ["x"]}
    assert refusal(body).startswith("stop_words: not possible for a list of 2 prompts")


@pytest.mark.parametrize("model", [MODEL, BY_ID], ids=["python", "tensorrtllm"])
def test_the_clients_id_is_known_and_does_not_go_on(model: Model) -> None:
    for sent in ("a", "", 'a "b" \\ é 😀', "x" * 128):
        made = read(json.dumps({**GOOD, "id": sent}).encode(), model)
        assert (made.request_id.client, made.request_id.inner) == (sent, INNER)
        assert json.loads(made.body) == {**GOOD, **OURS}


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ("x" * 129, "id: 129 characters; send at most 128"),
        ("a\x00b", "id: \\u0000 at character 1 is a control character"),
        ("a\nb", "id: \\u000a at character 1 is a control character"),
        ("\x7f", "id: \\u007f at character 0 is a control character"),
        ("\ud800", "id: \\ud800 at character 0 is half of a surrogate pair"),
        ("\udfff\ud800", "id: \\udfff at character 0 is half of a surrogate pair"),
        (7, "id: not a string"),
        (None, "id: not a string"),
    ],
)
def test_an_id_that_is_too_long_or_no_text_is_refused(sent: Any, message: str) -> None:
    assert refusal({**GOOD, "id": sent}).startswith(message)
    other = read_model({"name": "other", "platform": "ensemble"}, lambda _: {})
    assert refusal({"id": sent}, other).startswith(message)


def test_a_request_that_stops_another_needs_no_prompt() -> None:
    made = read(json.dumps({"id": "a", "stop": True}).encode(), BY_ID)
    assert (made.stops, made.request_id.client) == (True, "a")


@pytest.mark.parametrize("model", [MODEL, BY_ID], ids=["python", "tensorrtllm"])
@pytest.mark.parametrize(
    "body",
    [
        {"stop": True},
        {"stop": True, "id": ""},
        {"stop": [True]},
        {"stop": [True, True]},
        {"parameters": {"stop": True}},
        {**GOOD, "stop": True},
    ],
    ids=str,
)
def test_a_request_that_stops_another_needs_its_id(body: dict[str, Any], model: Model) -> None:
    assert refusal(body, model) == (
        'stop: needs the "id" of the request to end; send it at the top level'
    )


def test_a_request_that_does_not_stop_another_needs_no_id() -> None:
    assert prepared({**GOOD, "stop": False}) == {**GOOD, "stop": False, **OURS}


def test_only_an_ensemble_that_takes_text_is_checked() -> None:
    assert MODEL.checked
    assert not read_model({**ensemble_config(), "platform": ""}, lambda _: {}).checked
    assert not read_model({**ensemble_config(), "input": []}, lambda _: {}).checked


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from([*MODEL.fields, "id", "parameters", "trellis_client"]) | st.text()


@settings(max_examples=examples(400))
@given(st.dictionaries(KEYS, JSON, max_size=5), st.booleans())
def test_any_json_is_refused_with_a_message_or_goes_on_whole(
    body: dict[str, Any], right: bool
) -> None:
    asked = {**GOOD, **body} if right else body
    message, made = "", b"{}"
    try:
        made = read(json.dumps(asked).encode()).body
    except Refusal as refused:
        message = refused.message
    if message:
        assert len(message) < 2000
    else:
        flat = _one_list(asked)
        nested = flat.pop("parameters", {})
        assert json.loads(made) == {**flat, **nested, **OURS}


def _one_list(asked: dict[str, Any]) -> dict[str, Any]:
    """With the one input that takes lists of lists in JSON as a list of values."""
    made: dict[str, Any] = json.loads(json.dumps(asked))
    for place in (made, made.get("parameters", {})):
        if "lora_config" in place:
            place["lora_config"] = np.array(place["lora_config"]).reshape(-1).tolist()
    return made


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("lora_config", [[1, 2, 3], [4, 5, 6]]),
        ("lora_config", [[[1, 2, 3], [4, 5, 6]]]),
        ("lora_config", [1, 2, 3, 4, 5, 6]),
        ("table", [[1, 2, 3, 4, 5, 6]]),
        ("table", [[[1, 2, 3, 4, 5, 6]]]),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_lists_of_lists_go_on_as_the_one_list_that_triton_takes(
    name: str, sent: list[Any], nested: bool
) -> None:
    more = {"parameters": {name: sent}} if nested else {name: sent}
    made = prepared({**GOOD, **more}, WITH_TABLE)
    assert made[name] == [1, 2, 3, 4, 5, 6]
    assert made["max_tokens"] == 4


@pytest.mark.parametrize(
    ("name", "sent", "message"),
    [
        ("lora_config", [[1, 2, 3], [4, 5]], "the lists in it are not of 3 values each; send 3"),
        ("lora_config", [[1, 2, 3], 4], "the lists in it are not of 3 values each; send 3"),
        ("lora_config", [[1, 2, 3, 4]], "the lists in it are not of 3 values each; send 3"),
        ("lora_config", [[]], "the lists in it are not of 3 values each; send 3"),
        ("lora_config", [[1, 2, [3]]], "lists in a list are not understood"),
        ("lora_config", [[1, 2, "x"]], '"x" is not a whole number'),
        ("lora_config", [[[1, 2, 3]], [[4, 5, 6]]], "the lists in it are not of 3 values each"),
        ("table", [[1, 2], [3]], "the lists in it are not of one length; send as many values in"),
        ("table", [[1, 2], 3], "the lists in it are not of one length"),
        ("table", [[]], "the lists in it are not of one length"),
        ("table", [[1, 2], [3, 4]], "2 rows cannot be sent as JSON, in which Triton takes them"),
        ("lora_weights", [[1.0], [2.0, 3.0]], "FP16 cannot be sent over HTTP; send it by gRPC"),
    ],
)
def test_lists_of_lists_without_a_shape_are_refused_by_name(
    name: str, sent: list[Any], message: str
) -> None:
    assert refusal({**GOOD, name: sent}, WITH_TABLE).startswith(f"{name}: {message}")
