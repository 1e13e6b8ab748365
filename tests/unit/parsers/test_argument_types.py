# SPDX-License-Identifier: Apache-2.0
"""Of which type an argument is that was written as text."""

import json
from typing import Any

import pytest

from trellis.parsers import Tool
from trellis.parsers.argument_types import ArgumentTypes, json_type
from trellis.parsers.text_arguments import TextArguments


def types(schema: Any, **more: Any) -> ArgumentTypes:
    return ArgumentTypes(Tool("f", {"properties": {"a": schema}, **more}))


STRING, INTEGER, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}
OBJECT = {"type": "object", "properties": {"x": INTEGER}}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (STRING, "02139", '"02139"'),
        (STRING, " null\n", '" null\\n"'),
        (STRING, '{"a": 1}', '"{\\"a\\": 1}"'),
        (STRING, "é ☕", '"é ☕"'),
        ({}, "5", '"5"'),
        (True, "[1]", '"[1]"'),
        (INTEGER, "5", "5"),
        (INTEGER, "\n5 ", "5"),
        (INTEGER, "5.0", "5.0"),
        (INTEGER, "1e999", "1e999"),
        (INTEGER, "007", '"007"'),
        (INTEGER, "five", '"five"'),
        (INTEGER, "NaN", '"NaN"'),
        ({"type": "number"}, "1E20", "1E20"),
        ({"type": "number"}, "12345678901234567890.10", "12345678901234567890.10"),
        ({"type": "boolean"}, "True", "true"),
        ({"type": "boolean"}, "false", "false"),
        (NULL, "None", "null"),
        ({"type": ["string", "null"]}, "null", "null"),
        ({"type": ["string", "null"]}, " nothing", '" nothing"'),
        ({"anyOf": [STRING, INTEGER]}, "5", "5"),
        ({"anyOf": [STRING, INTEGER]}, "5.5", '"5.5"'),
        ({"anyOf": [STRING, INTEGER]}, "five", '"five"'),
        ({"anyOf": [INTEGER, {}]}, "x 5", '"x 5"'),
        ({"allOf": [{"description": "n"}, INTEGER]}, "5", "5"),
        (OBJECT, '{"x":  1}', '{"x":  1}'),
        (OBJECT, "{'x': 1}", "\"{'x': 1}\""),
        ({"properties": {}}, "{}", "{}"),
        ({"items": INTEGER}, "[1,2]", "[1,2]"),
        ({"enum": ["x", "y"]}, "\nx ", '"x"'),
        ({"enum": [1, "1"]}, "1", "1"),
        ({"const": 3}, "3", "3"),
        ({"$ref": "#/$defs/n"}, "5", "5"),
        ({"$ref": "#/$defs/m~1x"}, "5", "5"),
        ({"$ref": "#/$defs/none"}, "5", '"5"'),
        ({"$ref": "https://example.com/schema"}, "5", '"5"'),
        ({"$ref": "#/$defs/loop"}, "5", '"5"'),
        ({"anyOf": [{"$ref": "#/$defs/round"}]}, "5", '"5"'),
        ({"type": "int"}, "5", '"5"'),
        (5, "5", '"5"'),
    ],
)
def test_an_argument_is_of_its_schemas_type(schema: Any, text: str, value: str) -> None:
    found = types(
        schema,
        **{
            "$defs": {
                "n": INTEGER,
                "m/x": {"$ref": "#/$defs/n"},
                "loop": {"$ref": "#/$defs/loop"},
                "round": {"anyOf": [{"$ref": "#/$defs/round"}]},
            }
        },
    )
    assert found.to_json("a", text) == value
    if value not in ("1e999",):
        json.loads(value)


def test_an_argument_that_is_not_declared_is_of_the_additional_ones_type() -> None:
    assert types(STRING, additionalProperties=INTEGER).to_json("b", "5") == "5"
    assert types(STRING).to_json("b", "5") == '"5"'
    assert ArgumentTypes(None).to_json("b", "5") == '"5"'


@pytest.mark.parametrize(
    ("schema", "plain"),
    [
        (STRING, True),
        ({}, True),
        ({"type": ["string", "null"]}, False),
        ({"type": "string", "enum": ["x"]}, False),
        (INTEGER, False),
    ],
)
def test_what_is_a_string_in_any_case_is_told(schema: Any, plain: bool) -> None:
    assert types(schema).is_plain_string("a") is plain


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", ""),
        ('"a"', "string"),
        ("{}", "object"),
        ("[]", "array"),
        ("true", "boolean"),
        ("false", "boolean"),
        ("null", "null"),
        ("-1.5e3", "number"),
        ("nul", ""),
        ("1.", ""),
        ("{} ", ""),
        ("[" * 10000, ""),
    ],
)
def test_a_json_texts_type(text: str, kind: str) -> None:
    assert json_type(text) == kind


def test_arguments_are_one_object_whatever_the_pieces() -> None:
    written: list[str] = []
    arguments = TextArguments(Tool("f", {"properties": {"n": INTEGER}}), written.append)
    for name, pieces in (("s", ['a "', "☕\n"]), ("n", ["1", "2"]), ('"', [])):
        arguments.begin(name)
        for piece in pieces:
            arguments.add(piece)
        arguments.end_value()
    assert "".join(written) == '{"s": "a \\"☕\\n", "n": 12, "\\"": ""'
    arguments.end()
    assert json.loads("".join(written)) == {"s": 'a "☕\n', "n": 12, '"': ""}
