# SPDX-License-Identifier: Apache-2.0
"""What a format's structure lets a model say is read as calls that fit their schemas."""

import json
import random
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from support.parser_calls import SCHEMAS, TOOLS
from support.parser_readings import read
from support.parser_writers import PROMPTS, WRITERS
from support.parsing import cut
from support.structure_walks import draw
from trellis.guides.translate import translate
from trellis.parsers import Setup, Tool, ToolUse
from trellis.parsers.registry import load
from trellis.parsers.structure import ending
from trellis.parsers.tagged_structure import Tags, arguments_in_tags

ANSWERS = 60
CONSTRAINED = [
    name for name in WRITERS if load(name).structure(ToolUse(TOOLS), PROMPTS.get(name, ""))
]
IN_TAGS = ("qwen3_coder", "glm")


def check(name: str, tools: tuple[Tool, ...], answers: int = ANSWERS) -> set[str]:
    """Draw answers, read them in pieces; which tools were called."""
    form, prompt, dice = load(name), PROMPTS.get(name, ""), random.Random(name)
    schemas = {tool.name: {"type": "object", **tool.parameters} for tool in tools}
    structure = form.structure(ToolUse(tools, required=True), prompt)
    assert structure is not None
    setup = Setup(prompt, tools, constrained=True)
    called = set()
    for _ in range(answers):
        text = draw(structure, dice)
        reading = read(form, cut(text, dice), setup)
        assert reading.calls, text
        assert name == "harmony" or not reading.text.strip(), text
        for call in reading.calls:
            assert call.complete, text
            jsonschema.validate(json.loads(call.arguments), schemas[call.name])
            called.add(call.name)
    return called


@pytest.mark.parametrize("name", CONSTRAINED)
def test_what_is_let_through_is_read_as_calls_that_fit(name: str) -> None:
    assert check(name, TOOLS) == set(SCHEMAS)


def ends(structure: Mapping[str, Any]) -> bool:
    """Whether xgrammar counts a structure among those that end by themselves."""
    match structure["type"]:
        case "sequence":
            return ends(structure["elements"][-1])
        case "or":
            return all(map(ends, structure["elements"]))
    return structure["type"] not in ("any_text", "triggered_tags", "tags_with_separator")


@pytest.mark.parametrize("tools", [TOOLS, TOOLS[:1]])
@pytest.mark.parametrize("name", CONSTRAINED)
def test_one_call_may_stand_in_a_choice_with_a_document(name: str, tools: tuple[Tool, ...]) -> None:
    form, prompt, dice = load(name), PROMPTS.get(name, ""), random.Random(name)
    structure = form.structure(ToolUse(tools, required=True, parallel=False), prompt)
    assert structure is not None
    one = ending(structure)
    assert ends(one)
    for _ in range(10):
        text = draw(one, dice)
        (call,) = read(form, [text], Setup(prompt, tools, constrained=True)).calls
        assert call.complete, text


STRING = {"type": "string"}


@pytest.mark.parametrize("name", IN_TAGS)
@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"anyOf": [STRING, {"type": "null"}]},
        {"anyOf": [{"enum": ["a b", "c"]}, {"type": "null"}]},
        {"enum": ["x", 3, None]},
        {"const": "only"},
        {"type": "string", "minLength": 2, "maxLength": 5},
        {"type": "string", "pattern": "^[a-z]{3}$"},
        {"type": "string", "pattern": "[0-9]"},
        {"type": "integer", "minimum": 3},
        {"type": "array", "items": STRING},
        {"$ref": "#/$defs/pair"},
        {"type": "array", "items": {"$ref": "#/$defs/pair"}, "maxItems": 2},
    ],
)
def test_each_kind_of_argument_is_held_in_tags(name: str, schema: dict[str, Any]) -> None:
    pair = {"type": "object", "properties": {"x": STRING}, "additionalProperties": False}
    root = {"properties": {"a": schema, "b": schema}, "required": ["a"], "$defs": {"pair": pair}}
    assert check(name, (Tool("f", root),), 20) == {"f"}


@pytest.mark.parametrize("name", IN_TAGS)
def test_a_tool_without_a_schema_may_have_any_arguments(name: str) -> None:
    assert check(name, (Tool("f"),), 20) == {"f"}


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"required": ["a"]}]},
        {"properties": {}, "required": ["a"]},
        {"properties": {"a": STRING}, "minProperties": 1},
        *(
            {"properties": {"a": each}}
            for each in (
                {"type": "string", "format": "date"},
                {"type": "string", "maxLength": 100_000},
                {"type": "string", "pattern": "^a|b$"},
                {"anyOf": [STRING, {"type": "integer", "maximum": 3}]},
                {"enum": ["1", 1]},
                {"enum": ["<a>"]},
                {"not": STRING},
                {"$ref": "#/properties/b/items"},
                {"type": "array", "items": {"$ref": "#/properties/b"}},
            )
        ),
    ],
)
def test_a_schema_that_cannot_be_held_in_tags_is_not(schema: dict[str, Any]) -> None:
    assert arguments_in_tags(Tool("f", schema), Tags("<a>", "", "</a>")) is None


@pytest.mark.parametrize("thoughts", ["", "think+"])
@pytest.mark.parametrize("name", CONSTRAINED)
@pytest.mark.parametrize(
    "prompt", ["", "<think>\n", "<|assistant|></think>", "<|assistant|><think>"]
)
def test_a_structure_is_a_guide_that_every_engine_takes(
    name: str, thoughts: str, prompt: str
) -> None:
    if name == "harmony":
        thoughts, prompt = "", PROMPTS[name]
    for use in (ToolUse(TOOLS), ToolUse(TOOLS, required=True)):
        structure = load(thoughts + name).structure(use, prompt)
        tag = json.dumps({"type": "structural_tag", "format": structure})
        assert translate("structural_tag", tag).kind == "structural_tag"
