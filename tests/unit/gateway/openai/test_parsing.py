"""How an answer is read and what it is held to, by a model's format and a request's fields."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trellis.gateway.openai.chat_fields import ChatRequest
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.parsing import Parsing, plan_answer
from trellis.gateway.openai.structure import Constraint
from trellis.gateway.openai.tools import plan_tools
from trellis.parsers.registry import load

FUNCTION = {"name": "f", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": FUNCTION}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
TAG = {"type": "structural_tag", "format": {"type": "any_text"}}


def planned(
    parser: str | None, guides: bool = True, **fields: Any
) -> tuple[Parsing, Constraint | None]:
    """Of a chat with a model of that format; `guides`: whether its engine follows them."""

    async def follows_guides(_: Any) -> bool:
        return guides

    messages = [{"role": "user", "content": "x"}]
    asked = ChatRequest.model_validate({"model": "m", "messages": messages, **fields})
    form = None if parser is None else load(parser)
    tokenizer = SimpleNamespace(special_tokens={1: b"<|call|>"})
    served = SimpleNamespace(
        format=lambda calls: form, follows_guides=follows_guides, tokenizer=tokenizer
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


def test_a_stop_string_may_end_free_text() -> None:
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
