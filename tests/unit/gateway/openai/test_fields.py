"""From a body to a checked object: the field at fault is named, null asks for nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from trellis.contract.client_inputs import GUIDE_TYPE
from trellis.gateway.limits import Limits
from trellis.gateway.openai.chat_fields import ChatRequest
from trellis.gateway.openai.completions import CompletionRequest
from trellis.gateway.openai.errors import OpenAIError, as_openai, named
from trellis.gateway.openai.fields import Fields, Sampling, read_fields
from trellis.gateway.openai.response_fields import ResponsesRequest
from trellis.gateway.openai.tokenizing import DetokenizeRequest, TokenizeRequest
from trellis.gateway.refusals import Refusal

HI = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
KINDS: list[type[Fields]] = [
    ChatRequest,
    CompletionRequest,
    ResponsesRequest,
    TokenizeRequest,
    DetokenizeRequest,
]
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def chat(**more: Any) -> ChatRequest:
    return read_fields(ChatRequest, to_json({**HI, **more}), Limits())


def rejected(**more: Any) -> OpenAIError:
    def ask() -> None:
        asked = chat(**more)
        _ = (asked.most_tokens, asked.log_probs)

    with pytest.raises(OpenAIError) as caught:
        ask()
    return caught.value


def test_null_is_a_field_that_was_not_sent() -> None:
    nulls = dict.fromkeys(ChatRequest.model_fields.keys() - HI.keys())
    assert chat(**nulls).model_dump(exclude_unset=False) == chat().model_dump()


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_ours_takes_null_or_is_needed(kind: type[Fields]) -> None:
    for name, about in kind.model_fields.items():
        assert about.is_required() or about.default is None, name


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_rejected_is_a_field_with_a_reason(kind: type[Fields]) -> None:
    assert kind.rejected.keys() <= kind.model_fields.keys()
    assert kind.neutral.keys() <= kind.rejected.keys()
    assert all(kind.rejected.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", []),
        ("tool_choice", "none"),
        ("response_format", {"type": "text"}),
        ("modalities", ["text"]),
        ("store", False),
        ("best_of", 1),
        ("prompt_cache_options", {"mode": "implicit", "ttl": "30m"}),
    ],
)
def test_what_asks_for_nothing_is_taken(name: str, value: Any) -> None:
    assert chat(**{name: value})


@pytest.mark.parametrize(
    ("best_of", "n", "taken"),
    [
        (1, None, True),
        (3, 3, True),
        (None, 3, True),
        (3, None, False),
        (3, 2, False),
        (2, 3, False),
    ],
)
def test_the_best_of_as_many_as_are_sent_asks_for_nothing(
    best_of: int | None, n: int | None, taken: bool
) -> None:
    body = to_json({"model": "m", "prompt": "Hi", "best_of": best_of, "n": n})
    if taken:
        assert read_fields(CompletionRequest, body, Limits()).n == n
        return
    with pytest.raises(OpenAIError) as caught:
        read_fields(CompletionRequest, body, Limits())
    assert (caught.value.param, caught.value.code) == ("best_of", "unsupported_parameter")


def test_the_cache_s_options_are_taken_by_responses_too() -> None:
    body = to_json({"model": "m", "input": "Hi", "prompt_cache_options": {"ttl": "30m"}})
    assert read_fields(ResponsesRequest, body, Limits())
    assert rejected(prompt_cache_options={"size": 1}).param == "prompt_cache_options.size"


@pytest.mark.parametrize("name", sorted(ChatRequest.rejected))
def test_what_is_not_served_is_rejected_by_its_name(name: str) -> None:
    error = rejected(**{name: {"something": 1}})
    assert (error.status, error.param, error.code) == (400, name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("field", "name", "harmless", "wish"),
    [
        ("reasoning", "summary", "auto", "detailed"),
        ("reasoning", "summary", None, "concise"),
        ("reasoning", "generate_summary", "auto", "concise"),
        ("text", "verbosity", "medium", "low"),
    ],
)
def test_what_a_response_s_members_ask_for_is_rejected_by_its_place(
    field: str, name: str, harmless: Any, wish: Any
) -> None:
    def ask(value: Any) -> ResponsesRequest:
        body = to_json({"model": "m", "input": "Hi", field: {name: value}})
        return read_fields(ResponsesRequest, body, Limits())

    assert ask(harmless)
    with pytest.raises(OpenAIError) as caught:
        ask(wish)
    assert caught.value.param == f"{field}.{name}"
    assert caught.value.code == "unsupported_parameter"


def test_a_mistyped_field_has_its_hint() -> None:
    assert "did you mean temperature?" in rejected(temperatur=1).message
    assert rejected(zzz=1).message == "zzz: not known; leave it out"


def test_of_a_union_the_kind_that_fits_furthest_is_named() -> None:
    error = rejected(stop=["a", 5])
    assert error.param == "stop[1]"
    parts = [{"role": "user", "content": [{"type": "text"}, 5]}]
    assert rejected(messages=parts).param == "messages[0].content[1]"


def test_two_fields_of_one_meaning_must_agree() -> None:
    assert chat(max_tokens=5, max_completion_tokens=5).most_tokens == 5
    assert rejected(max_tokens=5, max_completion_tokens=6).param == "max_tokens"


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_whatever_is_sent_is_taken_or_rejected(kind: type[Fields], data: st.DataObject) -> None:
    names = st.sampled_from(sorted(kind.model_fields)) | st.text(max_size=8)
    body = data.draw(st.dictionaries(names, JUNK, max_size=6))
    error = None
    try:
        read_fields(kind, to_json(body), Limits())
    except OpenAIError as caught:
        error = caught
    if error is not None:
        assert error.status == 400
        assert error.param
        assert error.message.startswith(f"{error.param}: ")


@given(st.binary(max_size=40))
def test_whatever_bytes_are_sent_are_rejected(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        read_fields(ChatRequest, body, Limits())
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("message", "told", "param"),
    [
        ("in ensemble 'e', stop_words: 9 words", "stop: 9 words", "stop"),
        ("text_input: the prompt is empty", "messages: the prompt is empty", "messages"),
        ("bias_ids: x", "logit_bias: x", "logit_bias"),
        ("embedding_bias_words: x", "logit_bias: x", "logit_bias"),
        ("the engine failed: y", "the engine failed: y", None),
        ("nothing: z", "nothing: z", None),
        ("min_tokens: not beside end_id", "min_tokens: not beside ignore_eos", "min_tokens"),
        (f"stop_words: not beside {GUIDE_TYPE}", "stop: not beside guided_json", "stop"),
    ],
)
def test_what_a_model_says_is_told_by_openai_s_names(
    message: str, told: str, param: str | None
) -> None:
    names = {"prompt": "messages", GUIDE_TYPE: "guided_json"}
    assert named(message, names) == (told, param)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"max_tokens": 4},
            {"max_tokens": "max_tokens", "return_log_probs": "logprobs", "text_input": "messages"},
        ),
        (
            {"max_completion_tokens": 4},
            {"max_tokens": "max_completion_tokens", "top_log_probs": "top_logprobs"},
        ),
        ({"prompt": "x"}, {"text_input": "prompt", "top_log_probs": "logprobs"}),
        (
            {"input": "x"},
            {"max_tokens": "max_output_tokens", "return_log_probs": "include", "prompt": "input"},
        ),
    ],
)
def test_a_field_is_told_by_a_name_that_its_endpoint_has(
    asked: dict[str, Any], told: dict[str, str]
) -> None:
    kind: type[Sampling] = ResponsesRequest if "input" in asked else CompletionRequest
    if kind is CompletionRequest and "prompt" not in asked:
        kind, asked = ChatRequest, {**HI, **asked}
    names = read_fields(kind, to_json({"model": "m", **asked}), Limits()).names
    for name, param in told.items():
        assert named(f"{name}: too much", names) == (f"{param}: too much", param)
        assert param in kind.model_fields


def test_a_refusal_of_the_gateway_s_keeps_its_status_and_headers() -> None:
    error = as_openai(Refusal(405, "use POST", allow="POST"))
    assert (b"allow", b"POST") in error.headers(3)
    assert as_openai(error) is error
    assert b'"type":"server_error"' in as_openai(Refusal(503, "wait")).body()
    assert (b"www-authenticate", b"Bearer") in OpenAIError(401, "send a key").headers(0)
