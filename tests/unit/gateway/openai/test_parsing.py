"""How an answer is read and what it is held to, by a model's format and a request's fields."""

import asyncio
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from trellis.gateway.openai.chat_fields import ChatRequest
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.parsing import Parsing, plan_answer
from trellis.gateway.openai.structure import Constraint
from trellis.gateway.openai.tools import plan_tools
from trellis.guides.translate import translate
from trellis.parsers.registry import load

FUNCTION = {"name": "f", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": FUNCTION}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
TAG = {"type": "structural_tag", "format": {"type": "any_text"}}


class Ascii:
    """A vocabulary of 128 tokens and a special one, which reads all else and writes none of it."""

    special_tokens: ClassVar = {128: b"<|call|>"}
    text_vocab_size = 128

    def encode_fragment(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(token for token in ids if token < 128).decode()

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])


def planned(
    parser: str | None, guides: bool = True, **fields: Any
) -> tuple[Parsing, Constraint | None]:
    """Of a chat with a model of that format; `guides`: whether its engine follows them."""

    async def follows_tags(_: Any) -> bool:
        return guides

    messages = [{"role": "user", "content": "x"}]
    asked = ChatRequest.model_validate({"model": "m", "messages": messages, **fields})
    form = None if parser is None else load(parser)
    served = SimpleNamespace(
        format=lambda calls: form, follows_tags=follows_tags, tokenizer=Ascii()
    )
    state = SimpleNamespace(encoders=None)
    plan = plan_tools(asked.tools, asked.tool_choice, asked.parallel_tool_calls)
    made = plan_answer(cast(Any, state), cast(Any, served), asked, plan, asked.constraint, "")
    return asyncio.run(made)


@pytest.mark.parametrize("parser", [None, "think", "think+hermes"])
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_a_stop_string_cannot_cut_a_document(
    parser: str | None, tools: list[dict[str, Any]] | None
) -> None:
    with pytest.raises(OpenAIError) as raised:
        planned(parser, response_format=SCHEMA, stop=["a", ""], tools=tools)
    assert (raised.value.status, raised.value.param) == (400, "stop")
    assert "response_format.json_schema.schema holds it to" in raised.value.message
    _, held = planned(parser, response_format=SCHEMA, stop=[""])
    assert held is not None


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "function": {"name": "f"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "f"}}],
            },
        },
    ],
)
def test_a_stop_string_cannot_cut_a_call_that_is_asked_for(choice: Any) -> None:
    with pytest.raises(OpenAIError) as raised:
        planned("hermes", tools=TOOLS, tool_choice=choice, stop=["a", ""])
    assert (raised.value.status, raised.value.param) == (400, "stop")
    assert "could end the call" in raised.value.message
    _, held = planned("hermes", tools=TOOLS, tool_choice=choice, stop=[""])
    assert held is not None


def test_a_stop_string_may_end_free_text() -> None:
    _, held = planned("hermes", tools=TOOLS, stop="a")
    assert held is not None
    _, held = planned("think", response_format=TAG, stop="a")
    assert held is not None


ONE: dict[str, Any] = {"tools": TOOLS, "parallel_tool_calls": False}


@pytest.mark.parametrize(
    ("parser", "guides", "fields"),
    [
        ("hermes", False, {}),
        ("harmony", True, {}),
        ("hermes", True, {"bad_words": ["a"]}),
        ("hermes", True, {"ignore_eos": True}),
        ("hermes", True, {"stop_token_ids": [1]}),
        ("hermes", True, {"min_tokens": 2}),
    ],
)
def test_what_no_guide_ends_behind_its_first_call_ends_there_here(
    parser: str, guides: bool, fields: dict[str, Any]
) -> None:
    parsing, held = planned(parser, guides, **ONE, **fields)
    assert (parsing.one_call, held) == (True, None)
    parsing, _ = planned(parser, guides, tools=TOOLS, **fields)
    assert not parsing.one_call


def test_a_guide_ends_an_answer_behind_its_first_call_itself() -> None:
    parsing, held = planned("hermes", **ONE)
    assert held is not None
    assert '"stop_after_first": true' in held.guide
    assert not parsing.one_call


def options(count: int, note: str = "") -> dict[str, Any]:
    """A schema of many properties, each of which says what it is for."""
    each = {"type": "string", "description": note} if note else {"type": "string"}
    return {"type": "object", "properties": {f"option_{n}": each for n in range(count)}}


def tools(*schemas: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": f"f{n}", "parameters": schema, **more}}
        for n, schema in enumerate(schemas)
    ]


NAMED = options(2) | {"$id": "https://example.com/options", "$schema": "https://json-schema.org"}
UNWRITTEN = {"type": "object", "properties": {"a": {"enum": ["\U00040000"]}}}
DISTINCT: list[dict[str, Any]] = [{"properties": {f"{n}" + "a" * 700: {}}} for n in range(100)]


@pytest.mark.parametrize(
    ("sent", "within"),
    [
        (tools(*[options(12, "What it is for, in so many words. " * 3)] * 50), "option_11"),
        (tools(NAMED), "option_1"),
        (tools(UNWRITTEN), None),
        (tools(*DISTINCT), None),
    ],
    ids=["descriptions", "$id", "a letter without tokens", "too many"],
)
def test_tools_that_may_be_called_are_held_to_what_they_can_be(
    sent: list[dict[str, Any]], within: str | None
) -> None:
    """A guide that nobody asked for rejects nothing."""
    _, held = planned("hermes", tools=sent)
    assert held is not None
    translate(held.kind, held.guide)
    assert (within is None) == ("option_" not in held.guide)
    assert within is None or within in held.guide
    assert "description" not in held.guide


def test_tools_that_are_too_many_even_by_their_names_are_held_to_nothing() -> None:
    sent = tools(*[{}] * 128)
    for n, tool in enumerate(sent):
        tool["function"]["name"] = "a_very_long_name_" * 3 + f"{n}"
        tool["function"]["parameters"] = {}
    _, held = planned("qwen3_coder", tools=sent)
    assert held is None or translate(held.kind, held.guide)


@pytest.mark.parametrize(
    ("sent", "said"), [(tools(UNWRITTEN), "U+40000"), (tools(*DISTINCT), "guide_")]
)
@pytest.mark.parametrize("asked", [{"tool_choice": "required"}, {"strict": True}])
def test_tools_that_must_be_held_to_are_rejected_where_they_cannot_be(
    sent: list[dict[str, Any]], said: str, asked: dict[str, Any]
) -> None:
    if "strict" in asked:
        sent = [{**tool, "function": {**tool["function"], "strict": True}} for tool in sent]
        asked = {}
    with pytest.raises(OpenAIError) as raised:
        planned("hermes", tools=sent, **asked)
    assert raised.value.status == 400
    assert (raised.value.param or "").startswith("tool")
    assert said in raised.value.message
