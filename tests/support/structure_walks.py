# SPDX-License-Identifier: Apache-2.0
"""Answers that a structural tag lets through, drawn at random, without a model or a library."""

import json
import random
from collections.abc import Mapping
from functools import cache
from typing import Any

from support.grammar_walks import Walks
from trellis.guides.translate import translate

ANY = (
    "a", "é ☕", " ", "\n", "<", "</", ">", '"', "{", "}", "[1", "null", "</parameter>", "<b>",
    "</arg_value>", "\n<parameter=unit>\n", "</tool_call>", "\n</function>\n</tool_call>",
)  # fmt: skip
MOST = 4  # of what may be repeated


def draw(structure: Mapping[str, Any], dice: random.Random, end: str = "") -> str:
    """One answer. `end`: what ends any text."""
    match structure["type"]:
        case "const_string":
            return str(structure["value"])
        case "any_text":
            return _any(dice, end)
        case "json_schema":
            return _walks("json_schema", json.dumps(structure["json_schema"])).draw(dice)
        case "regex":
            return _walks("regex", structure["pattern"]).draw(dice)
        case "sequence":
            return "".join(draw(each, dice, end) for each in structure["elements"])
        case "or":
            return draw(dice.choice(structure["elements"]), dice, end)
        case "tag":
            inside = draw(structure["content"], dice, structure["end"])
            return f"{structure['begin']}{inside}{structure['end']}"
        case "tags_with_separator" | "triggered_tags":
            most = 1 if structure["stop_after_first"] else MOST
            count = dice.randint(1 if structure["at_least_one"] else 0, most)
            tags = [draw(dice.choice(structure["tags"]), dice) for _ in range(count)]
            return str(structure.get("separator", " ")).join(tags)
    raise TypeError(structure["type"])


@cache
def _walks(kind: str, guide: str) -> Walks:
    return Walks(translate(kind, guide).text)


def _any(dice: random.Random, end: str) -> str:
    while True:
        text = "".join(dice.choices(ANY, k=dice.randint(0, 4)))
        if not end or (text + end).find(end) == len(text):
            return text
