# SPDX-License-Identifier: Apache-2.0
"""What holds arguments to their schemas that are plain text in tags, one after another.

xgrammar has kinds of its own for that, which not every engine's release has, and which pad with
white space. This is made of kinds that all have: each argument of the schema in its order, those
that are not required perhaps left out. A value of any text ends at the closing tag, wherever that
is; the strings of JSON may have it in them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trellis.parsers.argument_types import ArgumentTypes, json_type, resolved, types_of
from trellis.parsers.format import Tool
from trellis.parsers.structure import (
    Structure,
    any_text,
    constant,
    one_of,
    regex,
    sequence,
    tag,
)

_SAYS_NOTHING = frozenset(
    {"$defs", "definitions", "title", "description", "$schema", "$id", "$comment", "examples",
     "default", "deprecated", "readOnly", "writeOnly"}
)  # fmt: skip
_OF_AN_OBJECT = frozenset({"type", "properties", "required", "additionalProperties"})
_NO_TAG = "(?:[^<]|<+[^/<])*"  # no closing one
_NAME = "[A-Za-z_][A-Za-z0-9_.-]{0,63}"
_LONGEST = 256  # of a string that has a bound


@dataclass(frozen=True)
class Tags:
    """How a format writes an argument."""

    before: str  # its name
    between: str  # its name and its value
    after: str  # its value
    frame: str = ""  # on both sides of the value
    behind: str = ""  # the argument

    def around(self, name: str, value: Structure) -> Structure:
        """One argument. Any text ends at the closing tag, whatever is in front of that."""
        end = self.after if value == any_text() else self.frame + self.after
        one = tag(self.before + name + self.between + self.frame, value, end)
        return sequence(one, constant(self.behind)) if self.behind else one


def arguments_in_tags(tool: Tool, tags: Tags) -> Structure | None:
    """All arguments of a call, or None for a schema that can't be held so."""
    schema = tool.parameters
    if not schema.keys() - {"type"}:
        return _any_arguments(tags)
    properties, required = schema.get("properties", {}), set(schema.get("required", ()))
    if schema.keys() - _OF_AN_OBJECT - _SAYS_NOTHING or not required <= properties.keys():
        return None
    made: list[Structure] = []
    for name in properties:
        value = _value(properties[name], schema)
        if value is None:
            return None
        one = tags.around(name, value)
        made.append(one if name in required else one_of(one, constant("")))
    return sequence(*made) if made else constant("")


def _any_arguments(tags: Tags) -> Structure:
    before, between = _escaped(tags.before), _escaped(tags.between + tags.frame)
    after = _escaped(tags.frame + tags.after + tags.behind)
    return regex(f"(?:{before}{_NAME}{between}{_NO_TAG}{after})*")


def _value(given: Any, root: Mapping[str, Any]) -> Structure | None:
    """What a value of this schema is held to; None if it can't be."""
    schema = resolved(given, root)
    if given is False or (not schema and "$ref" in json.dumps(given)):
        return None
    keys = schema.keys() - _SAYS_NOTHING
    types = types_of(schema, root)
    if keys & {"enum", "const"}:
        return _listed(schema) if keys <= {"enum", "const", "type"} else None
    if _is_simple(schema, root) and (not types or "string" in types):
        return any_text()
    if "string" not in types:
        return json_value(schema, root) if types else None
    for key in ("anyOf", "oneOf"):
        if keys == {key}:
            made = [_value(each, root) for each in schema[key]]
            whole = [each for each in made if each is not None and each != any_text()]
            return one_of(*whole) if len(whole) == len(made) else None
    return _string(schema, keys - {"type"}) if schema.get("type") == "string" else None


def _is_simple(schema: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Whether any value of the schema's types is one of it."""
    keys = schema.keys() - _SAYS_NOTHING
    if keys <= {"type"}:
        return True
    choices = [each for key in keys & {"anyOf", "oneOf"} for each in schema[key]]
    return (
        len(keys) == 1
        and bool(choices)
        and all(_is_simple(resolved(each, root), root) for each in choices)
    )


def _listed(schema: Mapping[str, Any]) -> Structure | None:
    values = schema.get("enum", [schema.get("const")])
    texts = [
        each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in values
    ]
    types = ArgumentTypes(Tool("", {"properties": {"a": schema}}))
    for text, value in zip(texts, values, strict=True):
        read = types.to_json("a", text)
        if json.loads(read) != value or json_type(read) != json_type(json.dumps(value)):
            return None
        if not text or "<" in text:
            return None
    return one_of(*map(constant, texts))


def _string(schema: Mapping[str, Any], keys: frozenset[str] | set[str]) -> Structure | None:
    if keys <= {"minLength", "maxLength"}:
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        if max(low, high or 0) > _LONGEST:
            return None
        return regex(f"[^<]{{{low},{'' if high is None else high}}}")
    if keys == {"pattern"} and "|" not in schema["pattern"]:
        pattern = schema["pattern"]
        is_begun, is_ended = pattern.startswith("^"), pattern.endswith("$")
        if not pattern.endswith("\\$"):
            inside = pattern[is_begun : len(pattern) - is_ended]
            return regex(f"{'' if is_begun else _NO_TAG}{inside}{'' if is_ended else _NO_TAG}")
    return None


def json_value(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Structure | None:
    """A value that is JSON, with what it refers to."""
    shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
    whole = {**schema, **shared}
    references = json.dumps(whole).count('"$ref": ')
    within = sum(json.dumps(whole).count(f'"$ref": "#/{key}/') for key in shared)
    return {"type": "json_schema", "json_schema": whole} if references == within else None


def _escaped(text: str) -> str:
    """A text as an expression."""
    signs = "\\.^$*+?{}[]|()"
    return "".join(f"\\{each}" if each in signs else each for each in text).replace("\n", "\\n")
