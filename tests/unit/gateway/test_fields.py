"""What the gateway says of a body, field by field, and what it makes of a good one."""

import json
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis.gateway.body import prepare
from trellis.gateway.ids import RequestIds
from trellis.gateway.models import Model, read_model, route
from trellis.gateway.replies import Refusal
from trellis.repository.model_config import parse_config
from trellis.repository.model_configs import SOURCES

TOKEN = "t" * 22
GOOD = {"text_input": "Hi", "max_tokens": 4}


def configuration() -> dict[str, Any]:
    """The ensemble's, as Triton gives it."""
    text = (SOURCES / "ensemble" / "config.pbtxt").read_text()
    config = parse_config(text.replace("${triton_max_batch_size}", "64"))
    found: dict[str, Any] = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return found


def ensemble(backend: str = "python") -> Model:
    """The model with an engine of this backend."""
    return read_model(configuration(), lambda _: {"backend": backend})


MODEL = ensemble()
BY_ID = ensemble("tensorrtllm")
TABLE = {"name": "table", "data_type": "TYPE_FP32", "dims": ["-1", "-1"]}
WITH_TABLE = read_model(
    {**configuration(), "input": [*configuration()["input"], TABLE]}, lambda _: {}
)


def refusal(body: bytes | dict[str, Any], model: Model = MODEL) -> str:
    """Why a body is refused, always with status 400."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refusal) as caught:
        prepare(model, sent, TOKEN, RequestIds())
    assert caught.value.status == 400
    return caught.value.message


def prepared(body: dict[str, Any], model: Model = MODEL, ids: RequestIds | None = None) -> Any:
    """What goes to Triton."""
    return json.loads(prepare(model, json.dumps(body).encode(), TOKEN, ids or RequestIds())[0])


@pytest.mark.parametrize(
    ("sent", "said"),
    [({}, None), ({"skip_special_tokens": False}, False), ({"skip_special_tokens": [True]}, True)],
)
def test_what_a_body_says_of_special_tokens_is_known(
    sent: dict[str, Any], said: bool | None
) -> None:
    body = json.dumps({**GOOD, **sent}).encode()
    assert prepare(MODEL, body, TOKEN, RequestIds()).skip_special_tokens is said


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
    "FP16": ({"lora_weights": [1.0]}, "lora_weights: FP16 cannot be sent as JSON"),
    "mistyped": ({"max_tokns": 4}, "max_tokns: no input of ensemble; did you mean max_tokens?"),
    "unknown": ({"grammar": "x"}, "grammar: no input of ensemble; leave it out (it has text_input"),
    "mistyped, nested": ({"parameters": {"tempratur": 1}}, "tempratur: no input of ensemble; did"),
    "parameters that are none": ({"parameters": [1]}, "parameters: not an object"),
    "twice": ({"parameters": {"max_tokens": 3}}, "max_tokens: given at the top level and in"),
    "an id that is a number": ({"id": 7}, "id: not a string"),
    "an id among the parameters": ({"parameters": {"id": "7"}}, "id: goes to the top level"),
    "the server's own": ({"trellis_client": TOKEN}, "trellis_client: only the server sets this"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_named_with_what_to_do(case: str) -> None:
    change, message = WRONG[case]
    assert refusal({**GOOD, **change}).startswith(message)


NO_OBJECT = {
    b"": "the body is not JSON: Expecting value",
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
    b'{"max_tokens": ' + b"9" * 5000 + b"}": "the body is not JSON: Exceeds the limit",
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
def test_a_right_body_goes_on_as_it_was_with_the_token(case: str) -> None:
    body = {**GOOD, **RIGHT[case]}
    assert prepared(body) == {**body, "trellis_client": TOKEN}


def test_nothing_but_the_first_brace_is_touched() -> None:
    body = b'\xef\xbb\xbf \n{ "text_input" : "\\u00e9\\ud83d\\ude00", "top_p":1.0E0 }\t'
    sent = prepare(MODEL, body, TOKEN, RequestIds()).body
    assert sent == body[3:].replace(b"{", b'{"trellis_client":"%s",' % TOKEN.encode(), 1)


def test_words_for_several_prompts_are_refused_by_name() -> None:
    body = {"text_input": ["a", "b"], "max_tokens": [4, 4], "stop_words": ["x"]}
    assert refusal(body).startswith("stop_words: not possible for a list of 2 prompts")


def test_an_engine_that_knows_requests_by_id_gets_one_for_each() -> None:
    ids = RequestIds()
    made = [prepared(GOOD, BY_ID, ids)["id"] for _ in range(3)]
    assert len(set(made)) == 3
    assert prepared({**GOOD, "id": "a"}, BY_ID, ids)["id"] == "a"
    again = prepared({**GOOD, "id": "a"}, BY_ID, ids)
    assert again == {**GOOD, "id": "a~1", "trellis_client": TOKEN}
    assert "id" in prepared({**GOOD, "id": ""}, BY_ID, ids)
    assert "id" not in prepared(GOOD)


def test_an_id_is_free_again_once_its_request_is_over_but_not_if_it_was_dropped() -> None:
    ids = RequestIds()
    ids.release(ids.take("a"), dropped=False)
    ids.release(ids.take("a"), dropped=True)
    assert ids.take("a") == "a~1"


def test_a_request_that_stops_another_keeps_its_id_and_needs_no_prompt() -> None:
    ids = RequestIds()
    ids.take("a")
    stop = {"id": "a", "stop": True}
    assert prepared(stop, BY_ID, ids) == {**stop, "trellis_client": TOKEN}


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
    assert prepared({**GOOD, "stop": False}) == {**GOOD, "stop": False, "trellis_client": TOKEN}


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/v2/models/ensemble/generate", "/v2/models/ensemble"),
        (b"/v2/models/a.b/versions/12/generate_stream?x=/", "/v2/models/a.b/versions/12"),
        (b"/v2/models/m/infer", ""),
        (b"/v2/models/m/generate/", ""),
        (b"/v2/models/m/x/generate", ""),
        (b"/v2/models//generate", ""),
    ],
)
def test_requests_are_known_by_the_path_that_triton_knows_them_by(target: bytes, path: str) -> None:
    assert route(b"POST", target) == path
    assert route(b"GET", target) == ""


def test_only_an_ensemble_that_takes_text_is_checked() -> None:
    assert MODEL.checked
    assert not read_model({**configuration(), "platform": ""}, lambda _: {}).checked
    assert not read_model({**configuration(), "input": []}, lambda _: {}).checked


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from([*MODEL.fields, "id", "parameters", "trellis_client"]) | st.text()


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(KEYS, JSON, max_size=5), st.booleans())
def test_any_json_is_refused_with_a_message_or_goes_on_whole(
    body: dict[str, Any], right: bool
) -> None:
    asked = {**GOOD, **body} if right else body
    message, made = "", b"{}"
    try:
        made = prepare(MODEL, json.dumps(asked).encode(), TOKEN, RequestIds()).body
    except Refusal as refused:
        message = refused.message
    if message:
        assert len(message) < 2000
    else:
        assert json.loads(made) == {"trellis_client": TOKEN, **_one_list(asked)}


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
    assert (made["parameters"] if nested else made)[name] == [1, 2, 3, 4, 5, 6]
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
        ("lora_weights", [[1.0], [2.0, 3.0]], "FP16 cannot be sent as JSON"),
    ],
)
def test_lists_of_lists_without_a_shape_are_refused_by_name(
    name: str, sent: list[Any], message: str
) -> None:
    assert refusal({**GOOD, name: sent}, WITH_TABLE).startswith(f"{name}: {message}")
