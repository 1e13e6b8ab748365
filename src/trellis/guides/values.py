# SPDX-License-Identifier: Apache-2.0
"""The values of `enum` and `const`."""

import json
from typing import Any

from trellis.guides.characters import is_text
from trellis.guides.flat import Flat, exact
from trellis.guides.limits import refused
from trellis.guides.nodes import Node, Text, choice
from trellis.guides.strings import constant

LARGEST = 10**15


def constants(flat: Flat) -> Node:
    """Those that what stands beside them allows. Raises RequestError for what is not looked at."""
    assert flat.enum is not None
    beside = {
        "pattern": bool(flat.patterns),
        "format": bool(flat.format),
        "properties": "object" in flat.groups,
        "items": "array" in flat.groups,
    }
    kinds = {_type(value) for value in flat.enum}
    relevant = {"pattern": "string", "format": "string", "properties": "object", "items": "array"}
    for name, there in beside.items():
        if there and relevant[name] in kinds:
            raise refused(f"{flat.place}.{name}", "not beside enum or const; leave it out")
    return choice(*(_written(value, flat.place) for value in flat.enum if meets(value, flat)))


def meets(value: Any, flat: Flat) -> bool:
    """Whether a value has one of the types, and is within the bounds."""
    kind = _type(value)
    whole = kind == "integer"
    if flat.types is not None and kind not in flat.types and not (whole and "number" in flat.types):
        return False
    if kind == "string":
        low, high = flat.lengths
        return low <= len(value) and (high is None or len(value) <= high)
    if kind in ("integer", "number"):
        bounds, number = flat.bounds, exact(value)
        above = (
            bounds.low is None or number > bounds.low or (number == bounds.low and not bounds.over)
        )
        below = (
            bounds.high is None
            or number < bounds.high
            or (number == bounds.high and not bounds.under)
        )
        return above and below
    return True


def _type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "integer" if value == int(value) else "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _written(value: Any, place: str) -> Node:
    if isinstance(value, str):
        if not is_text(value):
            raise refused(f"{place}.enum", "has half a character; leave it out")
        return constant(value)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not is_text(text):
        raise refused(f"{place}.enum", "has half a character; leave it out")
    return Text(text)
