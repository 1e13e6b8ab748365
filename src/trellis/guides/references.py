# SPDX-License-Identifier: Apache-2.0
"""What a `$ref` refers to: places of the same schema."""

from typing import Any
from urllib.parse import unquote

from trellis.guides.flat import Placed
from trellis.guides.limits import below, refused


def resolve(root: Placed, part: Placed) -> Placed:
    """The schema that the `$ref` of `part` names. Raises RequestError if there is none."""
    assert isinstance(part.schema, dict)
    reference = part.schema["$ref"]
    place = f"{part.place}.$ref"
    if reference != "#" and not reference.startswith("#/"):
        shown = reference[:60]
        raise refused(place, f"{shown!r} is not in this schema; write its place, as #/$defs/name")
    at: Any = root.schema
    found = root.place
    for step in reference.split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        at, found = _below(at, name), _place(at, found, name)
        if at is None:
            raise refused(place, f"{reference[:60]!r}: there is no such place in the schema")
    if not isinstance(at, (dict, bool)):
        raise refused(place, f"{reference[:60]!r}: there is no schema at that place")
    return Placed(found, at)


def _below(at: Any, name: str) -> Any:
    if isinstance(at, dict):
        return at.get(name)
    if isinstance(at, list) and name.isdecimal() and int(name) < len(at):
        return at[int(name)]
    return None


def _place(at: Any, found: str, name: str) -> str:
    return f"{found}[{name}]" if isinstance(at, list) else below(found, name)
