"""What an answer is held to: every way to say it, and what contradicts itself."""

import json
from typing import Any

import pytest

from trellis.gateway.limits import Limits
from trellis.gateway.openai.chat_fields import ChatRequest
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.fields import read_fields
from trellis.gateway.openai.response_fields import ResponsesRequest
from trellis.gateway.openai.structure import Constraint

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}
TAG = {"type": "structural_tag", "format": {"type": "any_text"}}


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    return read_fields(ChatRequest, json.dumps(body).encode(), Limits())


def held(**fields: Any) -> Constraint | None:
    return chat(**fields).constraint


def rejected(**fields: Any) -> OpenAIError:
    with pytest.raises(OpenAIError) as raised:
        held(**fields)
    assert raised.value.status == 400
    assert raised.value.message.startswith(f"{raised.value.param}: ")
    return raised.value


@pytest.mark.parametrize(
    ("fields", "kind", "guide"),
    [
        ({"response_format": {"type": "json_object"}}, "json", ""),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {}},
                }
            },
            "json_schema",
            "{}",
        ),
        ({"response_format": {"type": "regex", "regex": "a+"}}, "regex", "a+"),
        (
            {"response_format": {"type": "grammar", "grammar": "root ::="}},
            "ebnf_grammar",
            "root ::=",
        ),
        ({"response_format": TAG}, "structural_tag", json.dumps(TAG)),
        ({"structured_outputs": {"json": SCHEMA}}, "json_schema", json.dumps(SCHEMA)),
        ({"structured_outputs": {"json": "{ }"}}, "json_schema", "{ }"),
        ({"structured_outputs": {"regex": "a"}}, "regex", "a"),
        ({"structured_outputs": {"choice": ["a"]}}, "ebnf_grammar", 'root ::= "a"'),
        ({"structured_outputs": {"grammar": "g"}}, "ebnf_grammar", "g"),
        ({"structured_outputs": {"json_object": True}}, "json", ""),
        (
            {"structured_outputs": {"structural_tag": json.dumps(TAG)}},
            "structural_tag",
            json.dumps(TAG),
        ),
        ({"guided_json": SCHEMA}, "json_schema", json.dumps(SCHEMA)),
        ({"guided_json": False}, "json_schema", "false"),
        ({"guided_regex": "a"}, "regex", "a"),
        ({"guided_choice": ["a", '"é']}, "ebnf_grammar", 'root ::= "a" | "\\"é"'),
        ({"guided_grammar": "g"}, "ebnf_grammar", "g"),
    ],
)
def test_every_way_to_say_it_becomes_a_guide(fields: dict[str, Any], kind: str, guide: str) -> None:
    made = held(**fields)
    assert made is not None
    assert (made.kind, made.guide) == (kind, guide)
    assert made.param.startswith(next(iter(fields)))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response_format": None},
        {"response_format": {"type": "text"}},
        {"structured_outputs": {}},
        {"structured_outputs": {"json_object": False}},
    ],
)
def test_text_is_held_to_nothing(fields: dict[str, Any]) -> None:
    assert held(**fields) is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
        ),
        ({"response_format": {"type": "regex"}}, "response_format.regex"),
        ({"response_format": {"type": "grammar", "grammar": ""}}, "response_format.grammar"),
        ({"response_format": {"type": "structural_tag"}}, "response_format.format"),
        ({"response_format": {"type": "text", "regex": "a+"}}, "response_format.regex"),
        ({"response_format": {"type": "text", "grammar": ""}}, "response_format.grammar"),
        (
            {"response_format": {"type": "regex", "regex": "a", "format": {}}},
            "response_format.format",
        ),
        (
            {"response_format": {"type": "json_object", "json_schema": {"name": "n"}}},
            "response_format.json_schema",
        ),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "[]"}}, "structured_outputs.json"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["a", ""]}}, "structured_outputs.choice"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"structural_tag": "{"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"lark": "x"}}, "structured_outputs.lark"),
        ({"guided_regex": ""}, "guided_regex"),
        ({"guided_choice": ["x"] * 1025}, "guided_choice"),
        (
            {"response_format": {"type": "json_object"}, "guided_regex": "a"},
            "guided_regex",
        ),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.choice"),
    ],
)
def test_what_cannot_be_held_to_is_rejected_by_its_place(
    fields: dict[str, Any], param: str
) -> None:
    assert rejected(**fields).param == param


def test_a_response_s_format_is_the_same_guide() -> None:
    form = {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}
    body = {"model": "m", "input": "x", "text": {"format": form}}
    asked = read_fields(ResponsesRequest, json.dumps(body).encode(), Limits())
    assert asked.constraint == Constraint("json_schema", json.dumps(SCHEMA), "text.format.schema")
    assert asked.shown_format == form


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"type": "text", "schema": SCHEMA}, "text.format.schema"),
        ({"type": "text", "schema": {}}, "text.format.schema"),
        ({"type": "json_object", "schema": False}, "text.format.schema"),
        ({"type": "json_object", "name": "n"}, "text.format.name"),
        ({"type": "json_object", "strict": True}, "text.format.strict"),
        ({"type": "text", "strict": False, "schema": None}, None),
        ({"type": "text", "regex": "a"}, "text.format.regex"),
    ],
)
def test_what_a_response_s_format_does_not_have_is_named(
    form: dict[str, Any], param: str | None
) -> None:
    body = {"model": "m", "input": "x", "text": {"format": form}}

    def constraint() -> Constraint | None:
        return read_fields(ResponsesRequest, json.dumps(body).encode(), Limits()).constraint

    if param is None:
        assert constraint() is None
        return
    with pytest.raises(OpenAIError) as raised:
        constraint()
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("constraint", "form"),
    [
        (Constraint("json", "", "x"), {"type": "json_schema", "json_schema": {"type": "object"}}),
        (
            Constraint("json_schema", json.dumps(SCHEMA), "x"),
            {"type": "json_schema", "json_schema": SCHEMA},
        ),
        (Constraint("regex", "a", "x"), {"type": "regex", "pattern": "a"}),
        (Constraint("ebnf_grammar", "a", "x"), {"type": "grammar", "grammar": "a"}),
        (Constraint("structural_tag", json.dumps(TAG), "x"), TAG["format"]),
    ],
)
def test_a_guide_may_be_a_part_of_a_structural_tag(constraint: Constraint, form: Any) -> None:
    assert constraint.as_format() == form
