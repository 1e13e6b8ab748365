"""Structural tags: each part checked, and written as the grammars that engines get."""

import json
from typing import Any

import pytest

from trellis.errors import RequestError
from trellis.guides.tags import check_special
from trellis.guides.translate import size, to_grammar, translate

SCHEMA = {"properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = {
    "type": "tag",
    "begin": '<tool>{"name": "weather", "arguments": ',
    "content": {"type": "json_schema", "json_schema": SCHEMA},
    "end": "}</tool>",
}


def tag(format: Any) -> str:
    return json.dumps({"type": "structural_tag", "format": format})


def test_schemas_and_expressions_in_a_tag_become_grammars() -> None:
    triggered = {
        "type": "triggered_tags",
        "triggers": ["<tool>"],
        "tags": [CALL, {**CALL, "content": {"type": "regex", "pattern": "[0-9]+"}}],
        "stop_after_first": True,
    }
    rest = {"type": "or", "elements": [triggered, {"type": "any_text"}]}
    made = translate("structural_tag", tag({"type": "sequence", "elements": [rest]}))
    tags = json.loads(made.text)["format"]["elements"][0]["elements"][0]["tags"]
    grammars = [each["content"] for each in tags]
    assert grammars == [
        {"type": "grammar", "grammar": to_grammar("json_schema", SCHEMA, "$")},
        {"type": "grammar", "grammar": "root ::= [0-9]+\n"},
    ]
    assert size(made) > size(translate("json_schema", json.dumps(SCHEMA)))


def test_a_tag_may_begin_at_once_and_a_text_be_empty() -> None:
    """A prompt may have begun a model's thoughts, and an answer may have none."""
    made = json.loads(translate("structural_tag", tag({**CALL, "begin": ""})).text)
    assert made["format"]["begin"] == ""
    nothing = translate("structural_tag", tag({"type": "const_string", "value": ""})).text
    assert json.loads(nothing)["format"] == {"type": "grammar", "grammar": 'root ::= ""\n'}


@pytest.mark.parametrize(
    ("format", "place"),
    [
        ({"type": "token", "token": 3}, "$.format.type"),
        ({"type": "tag", "begin": "a", "end": "b"}, "$.format.content"),
        ({**CALL, "more": 1}, "$.format.more"),
        ({**CALL, "content": "a"}, "$.format.content"),
        ({**CALL, "begin": 3}, "$.format.begin"),
        ({**CALL, "content": {"type": "json_schema", "json_schema": {"not": {}}}},
         "$.format.content.json_schema.not"),
        ({**CALL, "content": {"type": "json_schema", "json_schema": {}, "style": "xml"}},
         "$.format.content.style"),
        ({"type": "regex", "pattern": 3}, "$.format.pattern"),
        ({"type": "regex", "pattern": "(?=a)"}, "$.format.pattern"),
        ({"type": "grammar", "grammar": "root ::= a"}, "there is no rule a"),
        ({"type": "sequence", "elements": []}, "$.format.elements"),
        ({"type": "or", "elements": [{"type": "any_text", "excludes": [3]}]},
         "$.format.elements[0].excludes[0]"),
        ({"type": "triggered_tags", "triggers": ["a"], "tags": [{"type": "any_text"}]},
         "$.format.tags[0].type"),
        ({"type": "triggered_tags", "triggers": ["a"], "tags": [CALL], "at_least_one": 1},
         "$.format.at_least_one"),
        (3, "$.format"),
    ],
)  # fmt: skip
def test_a_fault_in_a_tag_is_named_by_its_place(format: Any, place: str) -> None:
    with pytest.raises(RequestError) as error:
        translate("structural_tag", tag(format))
    assert place in str(error.value)


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"type": "structural_tag"}', tag({})[:-1] + ', "a": 1}']
)
def test_what_is_no_tag_is_rejected(text: str) -> None:
    with pytest.raises(RequestError, match=r"^guided_decoding_guide: \$"):
        translate("structural_tag", text)


def test_a_text_with_a_special_token_is_rejected_but_not_a_grammar() -> None:
    call = translate("structural_tag", tag({**CALL, "end": "}<|im_end|>"})).text
    with pytest.raises(RequestError, match=r"\$\.format\.end: '<\|im_end\|>' is a special token"):
        check_special(call, ["<s>", "<|im_end|>"])
    inside = translate(
        "structural_tag", tag({**CALL, "content": {"type": "regex", "pattern": "<s>"}})
    )
    check_special(inside.text, ["<s>"])
