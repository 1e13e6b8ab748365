# SPDX-License-Identifier: Apache-2.0
"""The keywords of JSON schemas: which are held, and what each may say."""

import math
from collections.abc import Callable
from typing import Any

from trellis.guides.characters import is_text
from trellis.guides.limits import ENDLESS, GUIDE_TIMES, below, refused

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
NOT_SUPPORTED = "not supported by this engine's grammars; leave it out"
# What changes nothing of which documents are valid.
ANNOTATIONS = frozenset(
    (
        "$anchor", "$comment", "$schema", "$vocabulary", "default", "deprecated", "description",
        "discriminator", "example", "examples", "externalDocs", "readOnly", "title", "writeOnly",
        "xml",
    )
)  # fmt: skip
DEFINITIONS = ("$defs", "definitions")

# Keywords whose values are schemas: by name, in a list, one alone.
NAMED = ("properties", "patternProperties", "dependentSchemas", *DEFINITIONS)
LISTED = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
SINGLE = ("items", "additionalItems", "additionalProperties", "propertyNames", "not")

LARGEST = 10**30  # number that a keyword may say

Schema = dict[str, Any] | bool


def _count(value: Any) -> bool:
    return _number(value) and value >= 0 and value == int(value)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST and math.isfinite(value)


def _schema(value: Any) -> bool:
    return isinstance(value, (dict, bool))


def _schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_schema, value))


def _named(value: Any) -> bool:
    return (
        isinstance(value, dict) and all(map(_schema, value.values())) and all(map(is_text, value))
    )


def _names(value: Any) -> bool:
    strings = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return strings and all(map(is_text, value)) and len(set(value)) == len(value)


def _types(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(each in TYPES for each in value)
    return value in TYPES


KEYWORDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_types, f"one of {', '.join(TYPES)}, or a list of them"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "a list of values"),
    "const": (lambda value: True, "a value"),
    "minimum": (_number, "a number"),
    "maximum": (_number, "a number"),
    "exclusiveMinimum": (lambda value: _number(value) or isinstance(value, bool), "a number"),
    "exclusiveMaximum": (lambda value: _number(value) or isinstance(value, bool), "a number"),
    "minLength": (_count, "an integer of 0 or more"),
    "maxLength": (_count, "an integer of 0 or more"),
    "pattern": (lambda value: isinstance(value, str), "a regular expression"),
    "format": (lambda value: isinstance(value, str), "the name of a format"),
    "items": (lambda value: _schema(value) or _schemas(value) or value == [], "a schema"),
    "prefixItems": (_schemas, "a list of schemas"),
    "additionalItems": (_schema, "a schema"),
    "minItems": (_count, "an integer of 0 or more"),
    "maxItems": (_count, "an integer of 0 or more"),
    "properties": (_named, "schemas by name"),
    "required": (_names, "a list of names, each once"),
    "additionalProperties": (_schema, "a schema"),
    "patternProperties": (_named, "schemas by expression"),
    "propertyNames": (_schema, "a schema"),
    "minProperties": (_count, "an integer of 0 or more"),
    "maxProperties": (_count, "an integer of 0 or more"),
    "allOf": (_schemas, "a list of schemas"),
    "anyOf": (_schemas, "a list of schemas"),
    "oneOf": (_schemas, "a list of schemas"),
    "$ref": (lambda value: isinstance(value, str), "where a schema is, as #/$defs/name"),
}
# Rejected unless they say nothing.
NEUTRAL: dict[str, Callable[[Any], bool]] = {
    "uniqueItems": lambda value: value is False,
    "multipleOf": lambda value: False,
    "nullable": lambda value: value is False,
    "not": lambda value: value is False,
    "dependentRequired": lambda value: value == {},
    "dependentSchemas": lambda value: value == {},
    "unevaluatedItems": lambda value: value is True,
    "unevaluatedProperties": lambda value: value is True,
}


def without_ids(schema: Any) -> Any:
    """A whole schema without what it is called, by which nothing in it is found here."""
    if not isinstance(schema, dict):
        return schema
    return {name: value for name, value in schema.items() if name not in ("$id", "id")}


def without_notes(schema: Any) -> Any:
    """A schema, and all in it, without what says nothing of a document: a size to be held to.

    >>> without_notes({"properties": {"title": {"title": "Its title", "type": "string"}}})
    {'properties': {'title': {'type': 'string'}}}
    """
    if not isinstance(schema, dict):
        return schema
    made = {}
    for name, value in schema.items():
        if name in ANNOTATIONS:
            continue
        if name in NAMED and isinstance(value, dict):
            value = {key: without_notes(each) for key, each in value.items()}
        elif name in LISTED and isinstance(value, list):
            value = [without_notes(each) for each in value]
        elif name in SINGLE:
            value = without_notes(value)
        made[name] = value
    return made


def check(schema: dict[str, Any], place: str) -> dict[str, Any]:
    """The keywords of a schema, not of those in it, that say something.

    Raises RequestError for one that is not known or held, and for a value that cannot be.
    """
    kept: dict[str, Any] = {}
    for name, value in schema.items():
        if name in KEYWORDS:
            allowed, hint = KEYWORDS[name]
            if not allowed(value):
                raise refused(f"{place}.{name}", f"{shown(value)} is not allowed; send {hint}")
            if allowed is _count and value > GUIDE_TIMES:
                if name.startswith("max") and value >= ENDLESS:
                    continue
                raise refused(f"{place}.{name}", f"{shown(value)} is too many: {GUIDE_TIMES}")
            kept[name] = value
        elif not _says_nothing(name, value, schema, place):
            raise refused(below(place, name), NOT_SUPPORTED)
    return kept


def _says_nothing(name: str, value: Any, schema: dict[str, Any], place: str) -> bool:
    """Whether a keyword that is not in KEYWORDS excludes no document."""
    if name in ANNOTATIONS or name in DEFINITIONS or name.startswith("x-"):
        return True
    if name == "uniqueItems" and schema.get("maxItems") in (0, 1):
        return True
    if name == "multipleOf":
        return value in (1, 1.0) and type(value) is not bool and schema.get("type") == "integer"
    return name in NEUTRAL and NEUTRAL[name](value)


def shown(value: Any) -> str:
    """A value in an error, cut."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def shown_name(name: str) -> str:
    """A name in an error, cut, in one line."""
    return name[:60].encode("unicode_escape").decode()
