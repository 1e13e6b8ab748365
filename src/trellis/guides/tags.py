# SPDX-License-Identifier: Apache-2.0
"""Structural tags as xgrammar reads them: texts, tags and free text, with schemas in between.

Each schema, expression and grammar in one becomes a grammar of ours, so that it is held here as it
is alone.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

from trellis.guides.characters import is_text
from trellis.guides.grammar import split_misread
from trellis.guides.keywords import shown, shown_name
from trellis.guides.limits import GUIDE_DEPTH, GUIDE_PARTS, below, refused, refused_by

# The keys of each kind of format that are read; those after "?" may be left out.
FORMATS: dict[str, str] = {
    "const_string": "value",
    "json_schema": "json_schema ?style",
    "regex": "pattern",
    "grammar": "grammar",
    "any_text": "?excludes",
    "sequence": "elements",
    "or": "elements",
    "tag": "begin content end",
    "triggered_tags": "triggers tags ?at_least_one ?stop_after_first ?excludes",
    "tags_with_separator": "tags separator ?at_least_one ?stop_after_first",
}
FLAGS = ("at_least_one", "stop_after_first")
TEXTS = ("value", "pattern", "grammar", "begin", "separator")
MAY_BE_EMPTY = ("begin", "separator")
NOTHING = 'root ::= ""\n'
MORE = {"json_schema": "json_schema", "regex": "regex", "grammar": "ebnf_grammar"}
GUIDES = {"json_schema": "json_schema", "regex": "pattern", "grammar": "grammar"}

ToGrammar = Callable[[str, Any, str], str]  # type of a guide, the guide, its place -> grammar


class TagReader:
    """Checks one structural tag and writes it anew."""

    def __init__(self, to_grammar: ToGrammar) -> None:
        self._to_grammar = to_grammar
        self._parts = 0

    def read(self, tag: Any) -> str:
        """The JSON of it that an engine gets. Raises RequestError with the place of a fault."""
        if not isinstance(tag, dict) or tag.get("type") != "structural_tag" or "format" not in tag:
            raise refused("$", 'send {"type": "structural_tag", "format": {...}}')
        if more := tag.keys() - {"type", "format"}:
            raise refused(f"$.{shown_name(min(more))}", "not known; leave it out")
        made = {"type": "structural_tag", "format": self._format(tag["format"], "$.format", 0)}
        return json.dumps(made, ensure_ascii=False)

    def _format(self, each: Any, place: str, depth: int, only: str = "") -> dict[str, Any]:
        self._parts += 1
        if depth > GUIDE_DEPTH or self._parts > GUIDE_PARTS:
            raise refused_by(
                f"guide_depth is {GUIDE_DEPTH}, guide_parts is {GUIDE_PARTS}; send a smaller one"
            )
        if not isinstance(each, dict):
            raise refused(place, "not a format; send an object with type")
        kind = each.get("type", "tag" if only == "tag" else None)
        if not isinstance(kind, str) or kind not in FORMATS or (only and kind != only):
            known = only or ", ".join(FORMATS)
            raise refused(f"{place}.type", f"{shown(kind)} is not supported; send one of {known}")
        self._check_keys(each, kind, place)
        if kind in GUIDES:
            key = GUIDES[kind]
            grammar = self._to_grammar(MORE[kind], each[key], f"{place}.{key}")
            return {"type": "grammar", "grammar": grammar}
        if kind == "const_string" and each["value"] == "":
            return {"type": "grammar", "grammar": NOTHING}  # which not every library takes as text
        if kind == "const_string" and len(texts := _split(each["value"], f"{place}.value")) > 1:
            return _sequence(texts)
        before: list[str] = []
        if kind == "tag" and not only:  # what it begins with may as well stand in front of it
            *before, begin = _split(each["begin"], f"{place}.begin")
            each = each | {"begin": begin}
        made = {"type": kind}
        for key, value in each.items():
            if key != "type":
                made[key] = self._value(key, value, f"{place}.{key}", depth)
        return _sequence(before, made) if before else made

    def _check_keys(self, each: dict[str, Any], kind: str, place: str) -> None:
        keys = FORMATS[kind].split()
        for key in each.keys() - {"type"} - {key.lstrip("?") for key in keys}:
            raise refused(f"{place}.{shown_name(key)}", f"{kind} has none; leave it out")
        for key in keys:
            if key not in each and not key.startswith("?"):
                raise refused(f"{place}.{key}", f"missing; {kind} needs it")
        if each.get("style", "json") != "json":
            raise refused(f"{place}.style", f"{shown(each['style'])} is not supported; send json")

    def _value(self, key: str, value: Any, place: str, depth: int) -> Any:
        if key in TEXTS:
            return self._text(value, place, empty=key in MAY_BE_EMPTY)
        if key in FLAGS:
            if not isinstance(value, bool):
                raise refused(place, "send true or false")
            return value
        if key == "content":
            return self._format(value, place, depth + 1)
        if key == "end" and isinstance(value, str):
            return self._text(value, place, empty=True)
        if not isinstance(value, list) or not (value or key == "excludes"):
            raise refused(place, "send a list")
        if key in ("elements", "tags"):
            only = "tag" if key == "tags" else ""
            return [
                self._format(each, f"{place}[{at}]", depth + 1, only)
                for at, each in enumerate(value)
            ]
        return [
            self._text(each, f"{place}[{at}]", empty=key == "end") for at, each in enumerate(value)
        ]

    def _text(self, value: Any, place: str, empty: bool = False) -> str:
        if not isinstance(value, str) or not is_text(value) or not (value or empty):
            raise refused(place, "send a text")
        if len(split_misread(value)) > 1:
            raise refused(
                place,
                "has a hex digit behind a character of U+007F to U+00FF, or behind a control"
                " character, which libraries read as another character; send it as a const_string",
            )
        return value


def _split(text: Any, place: str) -> list[Any]:
    """A text in pieces that are not misread; what is none as it is."""
    if not isinstance(text, str):
        return [text]
    if not is_text(text):
        raise refused(place, "send a text")
    return split_misread(text)


def _sequence(texts: list[str], *more: dict[str, Any]) -> dict[str, Any]:
    constants = ({"type": "const_string", "value": text} for text in texts)
    return {"type": "sequence", "elements": [*constants, *more]}


def check_special(tag: str, special: Iterable[str]) -> None:
    """Raise RequestError for a text of a tag that was read, in which a special token is.

    A library would let the text's letters stand for it.
    """
    tokens = tuple(filter(None, special))
    todo = [("$", json.loads(tag))]
    while todo:
        place, value = todo.pop()
        if isinstance(value, dict):
            todo += [(below(place, key), each) for key, each in value.items() if key != "grammar"]
        elif isinstance(value, list):
            todo += [(f"{place}[{at}]", each) for at, each in enumerate(value)]
        elif isinstance(value, str):
            for token in tokens:
                if token in value:
                    raise refused(
                        place,
                        f"{token!r} is a special token of this model, which no text is held to;"
                        " leave it out, or end the prompt with it",
                    )
