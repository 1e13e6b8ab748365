# SPDX-License-Identifier: Apache-2.0
"""Of which JSON type an argument is that a model wrote as plain text.

Formats like qwen3_coder and glm write `<parameter=zip>02139</parameter>`: only the tool's schema
says whether that is a string. The rules, in this order:

1. The text is JSON of a type that the schema allows, and not a string: as it is written.
   Python's True, False and None are read as true, false and null, which templates write, too.
2. The schema allows a string, or says nothing of a type: a string, with every character of it.
3. The text is other JSON: as it is written. Else a string: the client's check of the schema says
   what is wrong, and nothing is lost.

Where all allowed values are listed (enum, const), white space around the text is not part of it.
"""

import json
from collections.abc import Mapping
from typing import Any

from trellis.parsers.format import Tool
from trellis.parsers.json_scan import JsonScanner

Schema = Any  # a mapping, or a bool
_STRING = frozenset({"string"})
_KNOWN = frozenset({"string", "object", "array", "boolean", "null", "number", "integer"})
_PYTHON = {"True": "true", "False": "false", "None": "null"}
_DEPTH = 16  # of schemas that refer to one another


class ArgumentTypes:
    """The types of a tool's arguments."""

    def __init__(self, tool: Tool | None) -> None:
        """`tool`: None for one that was not offered; its arguments are strings."""
        self._root: Mapping[str, Any] = tool.parameters if tool else {}

    def declares(self, name: str) -> bool:
        """Whether the tool's schema has an argument of this name."""
        return name in self._properties()

    def is_plain_string(self, name: str) -> bool:
        """Whether the argument is a string whatever its text is: it can be given as it comes."""
        schema = self.schema(name)
        return types_of(schema, self._root) <= _STRING and not _listed(schema)

    def is_nested(self, name: str) -> bool:
        """Whether the argument is JSON that may be an object or an array, and never a string."""
        types = types_of(self.schema(name), self._root)
        return bool(types & {"object", "array"}) and "string" not in types

    def to_json(self, name: str, text: str) -> str:
        """The argument as JSON."""
        schema = self.schema(name)
        types = types_of(schema, self._root)
        bare = text.strip()
        if _listed(schema):
            text = bare
        if types - _STRING:
            bare = _PYTHON.get(bare, bare)
            found = json_type(bare)
            if _allows(types, found, bare) or (found and not types & _STRING):
                return bare
        return json.dumps(text, ensure_ascii=False)

    def _properties(self) -> Mapping[str, Any]:
        found = resolved(self._root, self._root).get("properties")
        return found if isinstance(found, Mapping) else {}

    def schema(self, name: str) -> Mapping[str, Any]:
        """The argument's schema, without a reference at its top; {} if there is none."""
        schema = self._properties().get(name, self._root.get("additionalProperties"))
        return resolved(schema, self._root)


def json_type(text: str) -> str:
    """The type of a JSON text, in JSON schema's words; "" if it is none."""
    scanner = JsonScanner()
    if not text or scanner.scan(text, 0) < len(text) or not scanner.end():
        return ""
    kinds = {'"': "string", "{": "object", "[": "array", "t": "boolean", "f": "boolean"}
    return kinds.get(text[0]) or ("null" if text[0] == "n" else "number")


def _allows(types: frozenset[str], found: str, text: str) -> bool:
    """Whether JSON of the type `found` is of one of `types`, and not a string."""
    if found == "number" and "integer" in types and "number" not in types:
        return float(text).is_integer()
    return found != "string" and found in types


def _listed(schema: Mapping[str, Any]) -> bool:
    return "enum" in schema or "const" in schema


def resolved(schema: Schema, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a chain of `$ref` into the same document ends at; {} if it has no end."""
    for _ in range(_DEPTH):
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(reference, str):
            break
        schema = root if reference.startswith("#") else {}
        for part in reference[1:].split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            schema = schema.get(part, {}) if isinstance(schema, Mapping) else {}
    else:
        return {}
    return schema if isinstance(schema, Mapping) else {}


def types_of(schema: Schema, root: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
    """The types that a schema of the document `root` allows; empty if it says nothing of them."""
    schema = resolved(schema, root)
    if depth == _DEPTH:
        return frozenset()
    declared = schema.get("type")
    if declared is not None:
        names = declared if isinstance(declared, list) else [declared]
        return _KNOWN.intersection(each for each in names if isinstance(each, str))
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list):
        return frozenset(json_type(json.dumps(value)) for value in values)
    for key in ("anyOf", "oneOf", "allOf"):
        choices = schema.get(key)
        if isinstance(choices, list):
            found = [types_of(each, root, depth + 1) for each in choices]
            if key != "allOf" and not all(found):
                return frozenset({"string"}).union(*found)  # one choice may be anything
            if any(found):
                return frozenset().union(*found)
    for key, kind in (("properties", "object"), ("items", "array")):
        if key in schema:
            return frozenset({kind})
    return frozenset()
