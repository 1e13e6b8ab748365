"""What the grammar of a JSON schema lets through: valid documents alone, and those that matter."""

import json
import random
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings

from support.grammar_walks import Walks
from support.hypothesis_profiles import examples
from support.random_schemas import schemas
from trellis.errors import RequestError
from trellis.guides.translate import to_grammar, translate

DRAWN = 12  # documents of a schema


def grammar(schema: Any) -> str:
    return to_grammar("json_schema", json.dumps(schema), "$")


@settings(max_examples=examples(1_000))
@given(schemas())
def test_every_document_of_a_grammar_is_valid(schema: Any) -> None:
    try:
        walks = Walks(grammar(schema))
    except RequestError:
        return
    validator = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    chance = random.Random(1)
    for _ in range(DRAWN):
        text = walks.draw(chance)
        document = json.loads(text)
        assert validator.is_valid(document), text


HELD = {
    "bounds": ({"type": "integer", "minimum": -12, "maximum": 230}, ["-12", "0", "99", "230"]),
    "a decimal": ({"type": "number", "minimum": 0, "maximum": 1}, ["0", "1", "0.25", "1.00"]),
    "any number": ({"type": "number"}, ["-1", "0.5", "1e9", "12.75E-3"]),
    "a length": ({"type": "string", "maxLength": 2}, ['""', '"ab"', '"😀é"', '"\\n\\""']),
    "a pattern": ({"pattern": "^[a-z]+$", "maxLength": 3}, ['"a"', '"abc"']),
    "found within": ({"pattern": "b"}, ['"b"', '"abc"']),
    "spaces": ({"type": "object"}, ["{}", '{"a": 1, "b":[1,2]}', '{"a":{"b": null}}']),
    "optional": (
        {"properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "required": ["b"]},
        ['{"b":null}', '{"a":null,"b":null}'],
    ),
    "other names": (
        {"properties": {"ab": {"const": 1}}, "additionalProperties": {"const": 2}},
        ['{"ab":1}', '{"abc":2}', '{"a":2,"b":2}', '{"ab":1,"x":2}', '{"":2}'],
    ),
    "recursion": (
        {
            "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}},
            "$ref": "#/$defs/node",
        },
        ["{}", '{"next":{"next":{}}}'],
    ),
    "apart": (
        {
            "oneOf": [
                {"properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in "ab"
            ]
        },
        ['{"kind":"a"}', '{"kind":"b"}'],
    ),
    "a count of closed names": (
        {
            "properties": {key: {"type": "null"} for key in "abc"},
            "additionalProperties": False,
            "minProperties": 2,
        },
        ['{"a":null,"c":null}', '{"a":null,"b":null,"c":null}'],
    ),
    "together": (
        {"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 4}]},
        ["3", "4"],
    ),
}


@pytest.mark.parametrize("case", HELD)
def test_usual_documents_are_of_the_grammar(case: str) -> None:
    schema, documents = HELD[case]
    accepted = Walks(grammar(schema))
    for document in documents:
        jsonschema.validate(json.loads(document), schema)
        assert accepted.takes(document), document


OUTSIDE = {
    "bounds": ["-13", "231", "007", "1.5"],
    "a decimal": ["-0.1", "1.01", "2"],
    "a length": ['"abc"', '"\\u0061"', "\"'"],
    "a pattern": ['"abcd"', '""'],
    "spaces": ["{ }", '{"a":  1}', '{"a":1\n}'],
    "optional": ["{}", '{"b":null,"a":null}'],
    "other names": ['{"ab":2}', '{"abc":1}', '{"a\\u0062":2}'],
    "a count of closed names": ["{}", '{"b":null}', '{"a":null,"d":null}'],
    "apart": ["{}", '{"kind":"c"}'],
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_other_documents_are_not(case: str) -> None:
    accepted = Walks(grammar(HELD[case][0]))
    assert [text for text in OUTSIDE[case] if accepted.takes(text)] == []


REFUSED = {
    "$.not": {"not": {"type": "null"}},
    "$.properties.a.not": {"properties": {"a": {"not": {}}}},
    '$.properties["a b"].if': {"properties": {"a b": {"if": {}}}},
    "$.items.uniqueItems": {"items": {"uniqueItems": True}},
    "$.multipleOf": {"type": "number", "multipleOf": 0.1},
    "$.contains": {"contains": {}},
    "$.minLenght": {"minLenght": 3},
    "$.unevaluatedProperties": {"unevaluatedProperties": False},
    "$.dependentRequired": {"dependentRequired": {"a": ["b"]}},
    "$.oneOf": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    "$.format": {"format": "regex"},
    "$.pattern": {"pattern": "(?=a)b"},
    "$.type": {"type": "text"},
    "$.minItems": {"minItems": -1},
    "$.required": {"required": ["a", "a"]},
    "$.$ref": {"$ref": "https://example.com/schema"},
    "$.items.$ref": {"items": {"$ref": "#/$defs/none"}},
    "$: $ref": {"$ref": "#"},
    "$.patternProperties": {"patternProperties": {"a": {}}, "properties": {"b": {}}},
    "$.minProperties": {"additionalProperties": True, "minProperties": 3},
    "no answer can meet it": {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "not JSON": "{",
}


@pytest.mark.parametrize("place", REFUSED)
def test_what_is_not_held_is_rejected_by_place(place: str) -> None:
    schema = REFUSED[place]
    text = schema if isinstance(schema, str) else json.dumps(schema)
    with pytest.raises(RequestError) as error:
        translate("json_schema", text)
    assert str(error.value).startswith("guided_decoding_guide: ")
    assert place in str(error.value)


def deep(levels: int) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


LARGE = {
    "guide_bytes": {"description": "x" * 70_000},
    "guide_depth": deep(70),
    "guide_elements": {
        "items": {"type": "string", "maxLength": 128},
        "maxItems": 60,
        "minItems": 60,
    }
    | {"prefixItems": [{"type": "string", "pattern": f"^[^{n}]{{99}}$"} for n in range(9)]},
    "guide_parts": {"anyOf": [{"minItems": n} for n in range(2_100)]},
}


MANY = {
    "guide_elements": {"properties": {f"p{n}": True for n in range(300)}, "maxProperties": 299},
    "guide_parts": {"allOf": [{"enum": list(range(2_000))}, {"enum": list(range(2_000))}]},
}


@pytest.mark.parametrize("limit", MANY)
def test_what_would_take_seconds_to_read_is_rejected_at_once(limit: str) -> None:
    begun = time.process_time()
    with pytest.raises(RequestError, match=limit):
        translate("json_schema", json.dumps(MANY[limit]))
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("limit", LARGE)
def test_each_limit_is_named(limit: str) -> None:
    text = json.dumps(LARGE[limit], separators=(",", ":"))
    with pytest.raises(RequestError, match=limit):
        translate("json_schema", text)
