# SPDX-License-Identifier: Apache-2.0
"""The structural tags of formats, as xgrammar reads them: what they let a model say."""

import pytest
from xgrammar import Grammar
from xgrammar.testing import _is_grammar_accept_string

from support.parsing import parse
from trellis.parsers import CallArguments, CallBegin, CallEnd, Setup, Text, Tool, ToolUse
from trellis.parsers.registry import load

pytestmark = pytest.mark.slow  # ci/ranks --long

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOLS = (Tool("f", SCHEMA), Tool("g"))
ONE = {  # a call of f by format, and what is between two
    "hermes": ('<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', "\n"),
    "llama3_json": ('{"name": "f", "parameters": {"a": 1}}', "; "),
    "mistral": ('[TOOL_CALLS]f[ARGS]{"a": 1}', ""),
}
MUST = {**ONE, "mistral": ('[{"name": "f", "arguments": {"a": 1}}]', "")}
LISTED = '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]'
THOUGHT = "<think>\nHm, <tool_call>.\n</think>\n\n"


def accepts(name: str, use: ToolUse, text: str, prompt: str = "") -> bool:
    structure = load(name).structure(use, prompt)
    tag = {"type": "structural_tag", "format": structure}
    return bool(_is_grammar_accept_string(Grammar.from_structural_tag(tag), text))


@pytest.mark.parametrize("name", ONE)
def test_what_must_be_calls_is_one_or_several_and_nothing_else(name: str) -> None:
    call, between = MUST[name]
    two = call + between + call if between else f"{call[:-1]}, {call[1:]}"
    use = ToolUse(TOOLS, required=True)

    assert accepts(name, use, call)
    assert accepts(name, use, two)
    assert not accepts(name, ToolUse(TOOLS, required=True, parallel=False), two)
    for wrong in ("", "Well.", f"Well. {call}", call[:-3], call.replace("1", '"x"')):
        assert not accepts(name, use, wrong)
    assert not accepts(name, ToolUse(TOOLS[1:], required=True), call)
    assert [type(each) for each in parse(load(name), [two], Setup(tools=TOOLS))] == [
        *(CallBegin, CallArguments, CallEnd) * 2
    ]


@pytest.mark.parametrize("name", ONE)
def test_text_is_free_up_to_where_a_call_begins(name: str) -> None:
    call, between = ONE[name]
    use = ToolUse(TOOLS)

    assert accepts(name, use, "Well, {yes} [TOOL] <tool>.")
    assert accepts(name, use, call)
    assert accepts(name, use, call + between + call)
    assert not accepts(name, ToolUse(TOOLS, parallel=False), call + between + call)
    assert not accepts(name, use, call.replace("1", '"x"'))
    assert not accepts(name, use, call.replace("f", "h"))


@pytest.mark.parametrize("name", ONE)
def test_what_is_accepted_is_read_as_calls(name: str) -> None:
    call, between = ONE[name]
    setup = Setup(tools=TOOLS, constrained=True)
    events = parse(load(name), [call + between + call], setup)

    assert not any(isinstance(event, Text) for event in events)
    assert [event.name for event in events if isinstance(event, CallBegin)] == ["f", "f"]


def test_a_mistral_model_may_write_a_list() -> None:
    assert accepts("mistral", ToolUse(TOOLS), LISTED)
    assert accepts("mistral", ToolUse(TOOLS), f"Well.{LISTED}")


def test_json_that_is_no_call_is_free_for_llama() -> None:
    for text in ('{"city": "Lima"}', '{"namely": 1}', "[1]", "<b>", "Well. {}"):
        assert accepts("llama3_json", ToolUse(TOOLS), text)


@pytest.mark.parametrize("required", [False, True])
def test_thoughts_come_first_as_the_prompt_has_it(required: bool) -> None:
    name, use, call = "think+hermes", ToolUse(TOOLS, required=required), ONE["hermes"][0]
    behind = THOUGHT.removeprefix("<think>\n")
    closed = "<think>\n\n</think>\n\n"

    assert accepts(name, use, THOUGHT + call)
    assert accepts(name, use, call)
    assert accepts(name, use, behind + call, "<think>\n")
    assert not accepts(name, use, call, "<think>\n")
    assert accepts(name, use, call, closed)
    assert not accepts(name, use, THOUGHT + call, closed)


def test_a_list_of_pythons_calls_is_held_where_it_must_come() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"$ref": "#/$defs/b"},
            "c": {"type": "boolean"},
        },
        "required": ["b"],
        "$defs": {"b": {"type": "string"}},
    }
    tools = (Tool("f", schema), Tool("g", {"properties": {"x": {}, "y": {}}}))
    use = ToolUse(tools, required=True)

    assert load("llama4_pythonic").structure(ToolUse(tools), "") is None
    for text in (
        '[f(b="x")]',
        '[f(b="\\u00e9", a=1, c=true), g()]',
        "[g(y=[1, null])]",
        '[g(x={"k": 2})]',
    ):
        assert accepts("llama4_pythonic", use, text), text
        events = parse(load("llama4_pythonic"), [text], Setup(tools=tools, constrained=True))
        assert not any(isinstance(event, Text) for event in events)
    for text in ("", "[]", "f()", "[f()]", '[f(a=1, b="x")]', "[f(b=1)]", '[h(b="x")]', "[g(z=1)]"):
        assert not accepts("llama4_pythonic", use, text), text
    assert not accepts("llama4_pythonic", ToolUse(tools, True, False), "[g(), g()]")
