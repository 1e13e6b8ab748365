# SPDX-License-Identifier: Apache-2.0
"""Tools, and random turns of a model that calls them: what outputs of parsers are made of."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trellis.parsers import Tool


class Turn(NamedTuple):
    """One answer of a model, before it is written in a format."""

    reasoning: str
    text: str
    calls: Sequence[tuple[str, Mapping[str, Any]]]  # name, arguments


def _object(required: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "get_weather": _object(
        ["city"], city=_STRING, unit={"type": "string", "enum": ["celsius", "fahrenheit"]}
    ),
    "search": _object(
        ["query"],
        query=_STRING,
        filters=_object(tags={"type": "array", "items": _STRING}, limit=_INTEGER),
    ),
    "write_file": _object(["path", "content"], path=_STRING, content=_STRING),
    "set_alarm": _object(
        ["hour"],
        hour=_INTEGER,
        volume={"type": "number"},
        repeat={"type": "boolean"},
        label={"type": ["string", "null"]},
    ),
    "get_time": _object(),
    "add_points": _object(
        ["points"], points={"type": "array", "items": {"type": "array", "items": _INTEGER}}
    ),
}
TOOLS = tuple(Tool(name, schema) for name, schema in SCHEMAS.items())
OPENAI_TOOLS = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]

WORDS = (
    "Paris", "Zürich", "東京", "naïve café ☕", "two words", "it's", 'a "quoted" word', "1", "007",
    "true", "null", "3.5", '{"a": 1}', "[1, 2]", "a < b", "x > y", "<b>bold</b>", "C:\\tmp\\x.txt",
    "line one\nline two", "\ttab", "100 %", "{braces}", "a; b", "f(x)", "[note]", "👩‍💻", "&amp;",
)  # fmt: skip
SENTENCES = (
    "Let me look that up.", "I need the weather first.", "Two steps, then.", "まず調べます。",
    "Is 3 < 4? Yes.", "Use `f(x)`; it is [documented].", "First line.\nSecond line.",
)  # fmt: skip


def random_turn(source: random.Random, thinks: bool = True, most_calls: int = 3) -> Turn:
    """A turn: perhaps thoughts, perhaps text, perhaps calls, and never nothing."""
    calls = [random_call(source) for _ in range(source.choice(range(most_calls + 1)))]
    text = source.choice(SENTENCES) if not calls or source.random() < 0.4 else ""
    reasoning = source.choice(SENTENCES) if thinks and source.random() < 0.5 else ""
    return Turn(reasoning, text, calls)


def random_call(source: random.Random) -> tuple[str, dict[str, Any]]:
    """A tool's name, and arguments that its schema allows."""
    name = source.choice(list(SCHEMAS))
    schema = SCHEMAS[name]
    arguments = {
        key: _value(source, kind)
        for key, kind in schema["properties"].items()
        if key in schema["required"] or source.random() < 0.6
    }
    return name, arguments


def _value(source: random.Random, schema: Mapping[str, Any]) -> Any:
    if "enum" in schema:
        return source.choice(schema["enum"])
    kind = schema["type"]
    match kind if isinstance(kind, str) else source.choice(kind):
        case "string":
            return " ".join(source.choices(WORDS, k=source.randint(1, 3)))
        case "integer":
            return source.choice([0, 7, -3, 2**40])
        case "number":
            return source.choice([0.75, -1.5, 1e20, 3])
        case "boolean":
            return source.random() < 0.5
        case "null":
            return None
        case "array":
            return [_value(source, schema["items"]) for _ in range(source.randint(0, 3))]
        case _:
            return {key: _value(source, each) for key, each in schema["properties"].items()}
