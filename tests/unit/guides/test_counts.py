# SPDX-License-Identifier: Apache-2.0
"""Counts and numbers of guides: all that is taken fits every engine's integers."""

import json
from typing import Any

import pytest

from trellis.errors import RequestError
from trellis.guides.limits import ENDLESS, GUIDE_TIMES
from trellis.guides.translate import size, translate

MOST: dict[str, dict[str, Any]] = {
    "maxLength": {"type": "string"},
    "maxItems": {"type": "array", "items": {"type": "null"}},
    "maxProperties": {"type": "object"},
}
LEAST = {name.replace("max", "min"): schema for name, schema in MOST.items()}
ENDS = [2_147_483_647, 2**63, 10**30, ENDLESS]
MANY = [GUIDE_TIMES + 1, 4_000_000, ENDLESS - 1]


def text(schema: dict[str, Any]) -> str:
    return json.dumps(schema)


@pytest.mark.parametrize("count", ENDS)
@pytest.mark.parametrize("name", MOST)
def test_an_upper_bound_that_no_answer_reaches_is_none(name: str, count: int) -> None:
    made = translate("json_schema", text(MOST[name] | {name: count}))
    assert made == translate("json_schema", text(MOST[name]))
    assert size(made)


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("name", [*MOST, *LEAST])
def test_a_count_that_is_too_large_is_rejected_by_its_place(name: str, count: int) -> None:
    schema = (MOST | LEAST)[name] | {name: count}
    for place, whole in ((f"$.{name}: ", schema), (f"$.items.{name}: ", {"items": schema})):
        with pytest.raises(RequestError) as error:
            translate("json_schema", text(whole))
        assert place in str(error.value)


@pytest.mark.parametrize("count", ENDS)
def test_a_lower_bound_that_no_answer_reaches_is_rejected(count: int) -> None:
    for name, schema in LEAST.items():
        with pytest.raises(RequestError, match=name):
            translate("json_schema", text(schema | {name: count}))


@pytest.mark.parametrize("count", ENDS)
def test_a_repetition_without_a_reachable_end_has_none(count: int) -> None:
    if count < 2**32:  # Python's own limit
        assert translate("regex", f"a{{2,{count}}}") == translate("regex", "a{2,}")
    assert translate("ebnf_grammar", f'root ::= "a"{{2,{count}}}') == translate(
        "ebnf_grammar", 'root ::= "a"{2,}'
    )


@pytest.mark.parametrize("bounds", [*(f"0,{n}" for n in MANY), f"{ENDLESS}", "9" * 5000, "0,2,1"])
def test_a_repetition_of_too_many_is_rejected(bounds: str) -> None:
    for kind, guide in (
        ("regex", f"a{{{bounds}}}b"),
        ("ebnf_grammar", f'root ::= "a"{{{bounds}}}'),
    ):
        if bounds == "0,2,1" and kind == "regex":
            continue  # there it is a text
        with pytest.raises(RequestError, match="guided_decoding_guide"):
            translate(kind, guide)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ('{"const": 1e400}', "1e400' is too large a number"),
        ('{"enum": [{"a": [-1e999]}]}', "too large a number"),
        ('{"minimum": 1e309}', "too large a number"),
        ('{"properties": {"a": true}, "properties": {"b": true}}', "'properties' is there twice"),
        ('{"const": {"a": 1, "a": 2}}', "'a' is there twice"),
        ('{"const": NaN}', "NaN is no number"),
    ],
)
def test_json_that_readers_take_in_different_ways_is_rejected(schema: str, said: str) -> None:
    tag = {"type": "json_schema", "json_schema": "@"}
    whole = json.dumps({"type": "structural_tag", "format": tag})
    for kind, guide in (("json_schema", schema), ("structural_tag", whole.replace('"@"', schema))):
        with pytest.raises(RequestError) as error:
            translate(kind, guide)
        assert said in str(error.value)


def test_a_schema_may_say_what_it_is_called_wherever_it_stands() -> None:
    plain = {"type": "object", "properties": {"id": {"type": "null"}}}
    named = plain | {"$id": "https://example.com/schema"}
    assert translate("json_schema", text(named)) == translate("json_schema", text(plain))
    tags = [
        json.dumps(
            {
                "type": "structural_tag",
                "format": {"type": "json_schema", "json_schema": schema},
            }
        )
        for schema in (named, plain)
    ]
    assert len({translate("structural_tag", tag) for tag in tags}) == 1
    with pytest.raises(RequestError, match=r"\$\.items\.\$id: "):
        translate("json_schema", text({"items": named}))
