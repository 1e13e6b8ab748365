"""Guides on a real server, at temperature 1: over HTTP and gRPC, held or rejected by name."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema
import pytest

from support.asking import ENSEMBLE
from support.engines import ENGINE

pytestmark = pytest.mark.skipif(
    ENGINE == "llmapi", reason="the engine llmapi has no guides in its fake"
)

TYPE, GUIDE = "guided_decoding_guide_type", "guided_decoding_guide"
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
}


def ask(http: httpx.Client, kind: str, guide: Any = "", **more: Any) -> httpx.Response:
    text = guide if isinstance(guide, str) else json.dumps(guide)
    asked = {"max_tokens": 120, "temperature": 1.0, "top_p": 0.99, TYPE: kind, **more}
    asked |= {GUIDE: text} if text else {}
    body = {"text_input": "A person as JSON: ", "parameters": asked}
    return http.post(f"{ENSEMBLE}/generate", json=body)


def test_documents_are_valid_beside_each_other_at_temperature_one(http: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda seed: ask(http, "json_schema", SCHEMA, seed=seed), range(16))
        )
    texts = [answer.json()["text_output"] for answer in answers]
    assert len(set(texts)) > 1
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMA)


def test_each_kind_of_guide_holds_the_answer(http: httpx.Client) -> None:
    tag = {"type": "sequence", "elements": [{"type": "const_string", "value": "so: "},
           {"type": "json_schema", "json_schema": {"type": "boolean"}}]}  # fmt: skip
    asked = {
        "regex": ("[a-c]{3}-[0-9]{1,3} end", "[a-c]{3}-[0-9]{1,3} end"),
        "ebnf_grammar": ('root ::= "yes" | "no" "!"{1,2}', "yes|no!{1,2}"),
        "structural_tag": ({"type": "structural_tag", "format": tag}, "so: (true|false)"),
    }
    for kind, (guide, expression) in asked.items():
        text = ask(http, kind, guide).json()["text_output"]
        assert re.fullmatch(expression, text), (kind, text)


def test_alternatives_that_begin_alike_are_told_apart(http: httpx.Client) -> None:
    """The library of one engine loses its place in them as they stand here."""
    firsts = ("north", "south", "nord", "sud", "n", "s")
    lasts = ("east", "west", "est", "ouest", "e", "w", "eastern", "western")
    words = [f"{first}-{last}" for first in firsts for last in lasts]
    sizes = ["[0-9]", *(f"[1-9][0-9]{{{more}}}" for more in range(1, 6))]
    expression = "|".join(f"{size}[.][0-9]{{2}}" for size in sizes)
    asked: dict[str, tuple[str, Any, Any]] = {
        "enum": ("json_schema", {"enum": words}, {f'"{word}"' for word in words}.__contains__),
        "regex": ("regex", expression, re.compile(expression).fullmatch),
        "ebnf": (
            "ebnf_grammar",
            "root ::= " + " | ".join(f'"{word}"' for word in words),
            set(words).__contains__,
        ),
        "rules": (
            "ebnf_grammar",
            "root ::= "
            + " | ".join(f"w{number}" for number in range(len(words)))
            + "".join(f'\nw{number} ::= "{word}"' for number, word in enumerate(words)),
            set(words).__contains__,
        ),
        "anyOf": (
            "json_schema",
            {"anyOf": [{"const": word} for word in words]},
            {f'"{word}"' for word in words}.__contains__,
        ),
        "maximum": (
            "json_schema",
            {"type": "number", "maximum": 18446744073709551615},
            lambda text: json.loads(text) <= 18446744073709551615,
        ),
    }
    for name, (kind, guide, right) in asked.items():
        with ThreadPoolExecutor(16) as pool:
            seeds = range(32)
            answers = pool.map(
                lambda seed, kind=kind, guide=guide: ask(
                    http, kind, guide, seed=seed, temperature=1.5, top_p=1.0
                ),
                seeds,
            )
            texts = [answer.json()["text_output"] for answer in answers]
        assert [text for text in texts if not right(text)] == [], name
        assert len(set(texts)) > 4


def test_every_character_before_a_hex_digit_is_that_character(http: httpx.Client) -> None:
    """The library of one engine takes the digit for the end of an escape of its own."""
    texts = [f"{chr(code)}b{chr(code)}1" for code in [*range(0x20, 0x7F), *range(0xA0, 0x102)]]
    name, value = "über", "naïf: été, début"
    asked: list[tuple[str, Any, str]] = [
        *(("json_schema", {"const": text}, json.dumps(text, ensure_ascii=False)) for text in texts),
        ("regex", "début|début2", "début2?"),
        ("regex", "[à-ÿ]b{2}", "[à-ÿ]bb"),
        ("ebnf_grammar", 'root ::= "ça" [é0-3]', "ça[é0-3]"),
        *(("regex", each, each) for each in ("[\t^]x", "[a^]{3}x", r"[\^-~]{3}x", r"[^!-\]]{3}x")),
        ("json_schema", {"enum": [value]}, f'"{value}"'),
        (
            "json_schema",
            {"properties": {name: {"const": 1}}, "required": [name], "additionalProperties": False},
            f'[{{]"{name}": ?1[}}]',
        ),
        (
            "structural_tag",
            {"type": "structural_tag", "format": {"type": "const_string", "value": "début"}},
            "début",
        ),
    ]

    def wrong(number: int) -> str:
        kind, guide, expected = asked[number]
        text: str = ask(http, kind, guide, seed=number).json()["text_output"]
        literal = number < len(texts)
        right = text == expected if literal else bool(re.fullmatch(expected, text))
        return "" if right else f"{kind} {guide}: {text!r}"

    with ThreadPoolExecutor(16) as pool:
        assert list(filter(None, pool.map(wrong, range(len(asked))))) == []


@pytest.mark.parametrize("words", [["]"], ["^"], ["]", "^a", "é1"]])
def test_bad_words_of_marks_change_no_answer_without_them(
    http: httpx.Client, words: list[str]
) -> None:
    body = {"text_input": "The capital of France is", "parameters": {"max_tokens": 12}}
    plain = http.post(f"{ENSEMBLE}/generate", json=body).json()["text_output"]
    assert len(plain) > 10
    assert not any(word in plain for word in words)
    body["parameters"] = {"max_tokens": 12, "bad_words": words}
    assert http.post(f"{ENSEMBLE}/generate", json=body).json()["text_output"] == plain


def test_only_an_answer_cut_by_max_tokens_is_no_document(http: httpx.Client) -> None:
    cut = ask(http, "json_schema", SCHEMA, max_tokens=4, return_finish_reason=True).json()
    assert cut["finish_reason"] == "length"
    whole = ask(http, "json", end_id=-1, max_tokens=400, return_finish_reason=True).json()
    assert whole["finish_reason"] in ("stop", "length")
    if whole["finish_reason"] == "stop":
        assert isinstance(json.loads(whole["text_output"]), dict)


REJECTED: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "$.properties.a.not: not supported by this engine's grammars; leave it out": (
        "json_schema",
        {"properties": {"a": {"not": {}}}},
        {},
    ),
    "$: not JSON": ("json_schema", "{", {}),
    "guide_elements": ("regex", "[^a]{99}" * 20, {}),
    "stop_words: ": ("json", "", {"stop_words": ["}"]}),
    "end_id: 5 could end": ("json", "", {"end_id": 5}),
    "stop_token_ids: 7 could end": ("json", "", {"stop_token_ids": [7]}),
    "min_tokens: ": ("json", "", {"min_tokens": 5}),
    "bad_words: ": ("json", "", {"bad_words": ["no"]}),
    "no tokens for U+0004": ("regex", "a\\x04", {}),
    "'<|im_end|>' is a special token": (
        "structural_tag",
        {
            "type": "structural_tag",
            "format": {"type": "const_string", "value": "a<|im_end|>"},
        },
        {},
    ),
}


if ENGINE == "openvino":  # which makes one sequence a request
    REJECTED["num_return_sequences: "] = ("json", "", {"num_return_sequences": 2})


@pytest.mark.parametrize("message", REJECTED)
def test_what_cannot_be_held_is_rejected_by_name(http: httpx.Client, message: str) -> None:
    kind, guide, more = REJECTED[message]
    answer = ask(http, kind, guide, **more)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]
