"""Tools of a request: what may be called, what must be, and what the model is told of them."""

import json
from typing import Any, cast

import pytest

from trellis.gateway.limits import Limits
from trellis.gateway.openai.calls import Calls, new_call_id
from trellis.gateway.openai.chat_fields import ChatRequest
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.fields import read_fields
from trellis.gateway.openai.messages import Message, effort_arguments, plain_messages, tell_tools
from trellis.gateway.openai.parsing import _held_tools
from trellis.gateway.openai.response_fields import ResponsesRequest
from trellis.gateway.openai.served import Served
from trellis.gateway.openai.tools import ToolPlan, plan_tools
from trellis.parsers import CallArguments, CallBegin, CallEnd, Format, Text
from trellis.parsers.registry import load

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock", "strict": True}},
]
NAMED = {"type": "function", "function": {"name": "clock"}}
SOME = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}


def plan(**fields: Any) -> ToolPlan:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    asked = read_fields(ChatRequest, json.dumps(body).encode(), Limits())
    return plan_tools(asked.tools, asked.tool_choice, asked.parallel_tool_calls)


def plan_response(**fields: Any) -> ToolPlan:
    body = {"model": "m", "input": "x", **fields}
    return read_fields(ResponsesRequest, json.dumps(body).encode(), Limits()).plan


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": []},
        {"tool_choice": "auto"},
        {"tool_choice": "none"},
        {"tools": TOOLS, "tool_choice": "none"},
    ],
)
def test_without_tools_nothing_is_called(fields: dict[str, Any]) -> None:
    assert plan(**fields) == ToolPlan()


@pytest.mark.parametrize(
    ("fields", "names", "required", "parallel"),
    [
        ({}, ["weather", "clock"], False, True),
        ({"tool_choice": "auto"}, ["weather", "clock"], False, True),
        ({"parallel_tool_calls": False}, ["weather", "clock"], False, False),
        ({"tool_choice": "required"}, ["weather", "clock"], True, True),
        ({"tool_choice": NAMED}, ["clock"], True, False),
        ({"tool_choice": SOME}, ["clock"], True, True),
    ],
)
def test_a_choice_says_what_may_and_what_must_be_called(
    fields: dict[str, Any], names: list[str], required: bool, parallel: bool
) -> None:
    made = plan(tools=TOOLS, **fields)
    assert made.use is not None
    assert [tool.name for tool in made.use.tools] == names
    assert [tool.strict for tool in made.use.tools] == [name == "clock" for name in names]
    assert (made.use.required, made.use.parallel) == (required, parallel)
    assert [tool["function"]["name"] for tool in made.shown] == ["weather", "clock"]
    assert made.shown[0]["function"]["parameters"] == SCHEMA
    assert "strict" not in made.shown[1]["function"]


def test_a_response_s_tools_are_the_same() -> None:
    flat = [{"type": "function", **tool["function"]} for tool in TOOLS]  # type: ignore[dict-item]
    for choice, chats in (
        ({"type": "function", "name": "clock"}, NAMED),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "clock"}],
            },
            SOME,
        ),
        ("required", "required"),
    ):
        assert plan_response(tools=flat, tool_choice=choice) == plan(tools=TOOLS, tool_choice=chats)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice"),
        ({"tools": TOOLS[:1], "tool_choice": NAMED}, "tool_choice.function.name"),
        (
            {"tools": TOOLS[:1], "tool_choice": SOME},
            "tool_choice.allowed_tools.tools[0].function.name",
        ),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools[2].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": {}}, "tools"),
        ({"tools": TOOLS * 65}, "tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
    ],
)
def test_a_fault_is_named_by_its_place(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(OpenAIError) as raised:
        plan(**fields)
    assert raised.value.status == 400
    assert raised.value.param == param


def test_a_fault_of_a_function_is_named_by_the_place_that_the_endpoint_has() -> None:
    functions: list[dict[str, Any]] = [{"name": "f"}, {"name": "g", "parameters": {"not": {}}}]
    flat = [{"type": "function", **function} for function in functions]
    chats = [{"type": "function", "function": function} for function in functions]
    for made, place in (
        (plan(tools=chats, tool_choice="required"), "tools[1].function.parameters"),
        (plan_response(tools=flat, tool_choice="required"), "tools[1].parameters"),
    ):
        assert made.use is not None
        with pytest.raises(OpenAIError) as raised:
            _held_tools(made, made.use)
        assert raised.value.param == place
    with pytest.raises(OpenAIError) as raised:
        plan_response(tools=[*flat, flat[0]])
    assert raised.value.param == "tools[2].name"


def test_a_call_s_events_make_it() -> None:
    calls = Calls()
    for event in (
        Text("so: "),
        CallBegin(0, "f"),
        CallArguments(0, '{"a":'),
        CallArguments(0, " 1}"),
        CallEnd(0),
        CallBegin(1, "g", "given"),
    ):
        calls.take(event)
    assert [(call.name, call.arguments) for call in calls.made] == [("f", '{"a": 1}'), ("g", "")]
    assert calls.made[1].call_id == "given"
    assert len({new_call_id() for _ in range(1000)}) == 1000


def test_arguments_are_an_object_to_a_template_where_they_are_one() -> None:
    texts = ['{"a": 1}', "{cut", "[1]", None]
    made = plain_messages(
        [
            Message.model_validate(
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": text}}],
                }
            )
            for text in texts
        ],
        developer=False,
    )
    shown = [message["tool_calls"][0]["function"]["arguments"] for message in made]
    assert shown == [{"a": 1}, "{cut", "[1]", {}]
    assert all("content" not in message for message in made)


@pytest.fixture
def hermes() -> Format:
    return load("hermes")


def test_what_a_client_parsed_of_its_own_messages_is_taken_and_not_told() -> None:
    function = {"name": "clock", "arguments": "{}", "parsed_arguments": {"a": 1}}
    calls = [{"id": "1", "type": "function", "function": function}]
    answer = {"role": "assistant", "content": "{}", "parsed": {"a": 1}, "tool_calls": calls}
    body = json.dumps({"model": "m", "messages": [answer]}).encode()
    (told,) = plain_messages(read_fields(ChatRequest, body, Limits()).messages, False)
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": {}}}
    assert told == {"role": "assistant", "content": "{}", "tool_calls": [call]}


def test_a_template_without_tools_is_told_of_them_by_the_system_message(hermes: Format) -> None:
    tools = plan(tools=TOOLS).shown
    user = {"role": "user", "content": "x"}
    told = tell_tools([user], tools, hermes)
    assert [message["role"] for message in told] == ["system", "user"]
    for part in ('"weather"', '"clock"', "<tool_call>"):
        assert part in told[0]["content"]
    more = tell_tools([{"role": "system", "content": "Be brief."}, user], tools, hermes)
    assert more[0]["content"] == f"Be brief.\n\n{told[0]['content']}"
    assert len(more) == 2


def test_earlier_calls_are_text_to_a_template_without_tools(hermes: Format) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": "é"}}}
    message = {"role": "assistant", "content": "Well.", "tool_calls": [call, call]}
    (told,) = tell_tools([message], (), hermes)
    one = '<tool_call>\n{"name": "f", "arguments": {"a": "é"}}\n</tool_call>'
    assert told == {"role": "assistant", "content": f"Well.\n{one}\n{one}"}
    assert tell_tools([message], (), None) == [message]


@pytest.mark.parametrize(
    ("template", "effort", "told"),
    [
        ("{{ reasoning_effort }}", "high", {"reasoning_effort": "high"}),
        ("{{ enable_thinking }}", "none", {"enable_thinking": False}),
        ("{{ enable_thinking }}", "low", {"enable_thinking": True}),
        ("{{ messages }}", None, {}),
    ],
)
def test_a_template_is_told_how_much_to_think(
    template: str, effort: str | None, told: dict[str, Any]
) -> None:
    assert effort_arguments(served(template), effort) == told


def test_a_template_that_has_no_word_for_it_rejects_it() -> None:
    with pytest.raises(OpenAIError) as raised:
        effort_arguments(served("{{ messages }}"), "low", "reasoning.effort")
    assert raised.value.param == "reasoning.effort"


def served(template: str) -> Served:
    class Knows:
        def template_knows(self, name: str) -> bool:
            return name in template

    return cast(Served, Knows())
