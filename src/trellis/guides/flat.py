# SPDX-License-Identifier: Apache-2.0
"""A schema without references and without allOf, anyOf and oneOf: what it asks at one level."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

from trellis.guides.keywords import Schema
from trellis.guides.limits import GUIDE_PARTS, below, refused, refused_by
from trellis.guides.numbers import Bounds

OBJECT = frozenset(
    (
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
    )
)
ARRAY = frozenset(("items", "prefixItems", "additionalItems", "minItems", "maxItems"))
STRING = frozenset(("minLength", "maxLength", "pattern", "format"))
NUMBER = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"))
GROUPS = {"object": OBJECT, "array": ARRAY, "string": STRING, "number": NUMBER}

T = TypeVar("T")


class Placed(NamedTuple):
    """A schema and where it stands, as `$.properties.a`."""

    place: str
    schema: Schema


Parts = tuple[Placed, ...]  # schemas that are all to be met
ANYTHING: Parts = ()


@dataclass(slots=True)
class Flat:
    """What one level asks; None and empty ask nothing."""

    place: str
    never: bool = False
    types: frozenset[str] | None = None
    enum: list[Any] | None = None
    bounds: Bounds = field(default_factory=Bounds)
    lengths: tuple[int, int | None] = (0, None)
    patterns: tuple[str, ...] = ()
    format: str = ""
    properties: dict[str, Parts] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    additional: Parts | None = None
    by_pattern: dict[str, Parts] = field(default_factory=dict)
    names: Parts = ANYTHING
    counts: tuple[int, int | None] = (0, None)  # of properties
    prefix: tuple[Parts, ...] = ()
    items: Parts | None = None
    sizes: tuple[int, int | None] = (0, None)  # of an array
    groups: frozenset[str] = frozenset()  # of GROUPS, what it has keywords of


def flat_of(kept: dict[str, Any], place: str) -> Flat:
    """The keywords of one schema that was checked."""
    made = Flat(place)
    made.groups = frozenset(kind for kind, words in GROUPS.items() if words & kept.keys())
    if "type" in kept:
        names = kept["type"] if isinstance(kept["type"], list) else [kept["type"]]
        made.types = frozenset(names)
    if "const" in kept:
        made.enum = [kept["const"]]
    if "enum" in kept:
        made.enum = shared(made.enum, kept["enum"])
    made.bounds = _bounds(kept)
    made.lengths = _pair(kept, "minLength", "maxLength")
    made.counts = _pair(kept, "minProperties", "maxProperties")
    made.sizes = _pair(kept, "minItems", "maxItems")
    made.patterns = (kept["pattern"],) if "pattern" in kept else ()
    made.format = kept.get("format", "")
    _read_object(made, kept, place)
    _read_array(made, kept, place)
    return made


def _read_object(made: Flat, kept: dict[str, Any], place: str) -> None:
    for name, schema in kept.get("properties", {}).items():
        made.properties[name] = (Placed(below(f"{place}.properties", name), schema),)
    for name, schema in kept.get("patternProperties", {}).items():
        made.by_pattern[name] = (Placed(below(f"{place}.patternProperties", name), schema),)
    made.required = tuple(kept.get("required", ()))
    if "additionalProperties" in kept:
        additional = kept["additionalProperties"]
        made.additional = (Placed(f"{place}.additionalProperties", additional),)
    if "propertyNames" in kept:
        made.names = (Placed(f"{place}.propertyNames", kept["propertyNames"]),)


def _read_array(made: Flat, kept: dict[str, Any], place: str) -> None:
    prefix, name = kept.get("prefixItems", []), "prefixItems"
    items, behind = kept.get("items"), "items"
    if isinstance(items, list):  # before 2020
        prefix, name = items, "items"
        items, behind = kept.get("additionalItems"), "additionalItems"
    made.prefix = tuple(
        (Placed(f"{place}.{name}[{number}]", schema),) for number, schema in enumerate(prefix)
    )
    if items is not None:
        made.items = (Placed(f"{place}.{behind}", items),)


def _pair(kept: dict[str, Any], low: str, high: str) -> tuple[int, int | None]:
    most = kept.get(high)
    return int(kept.get(low, 0)), None if most is None else int(most)


def _bounds(kept: dict[str, Any]) -> Bounds:
    made = Bounds()
    over, under = kept.get("exclusiveMinimum"), kept.get("exclusiveMaximum")
    if "minimum" in kept:
        made = tighter(made, Bounds(low=exact(kept["minimum"]), over=over is True))
    if "maximum" in kept:
        made = tighter(made, Bounds(high=exact(kept["maximum"]), under=under is True))
    if over is not None and not isinstance(over, bool):
        made = tighter(made, Bounds(low=exact(over), over=True))
    if under is not None and not isinstance(under, bool):
        made = tighter(made, Bounds(high=exact(under), under=True))
    return made


def exact(value: float) -> Fraction:
    """A number of JSON as it is written."""
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))


def tighter(one: Bounds, other: Bounds) -> Bounds:
    """What is within both."""
    lows = [(each.low, each.over) for each in (one, other) if each.low is not None]
    highs = [(-each.high, each.under) for each in (one, other) if each.high is not None]
    low, over = max(lows, default=(None, False))
    high, under = max(highs, default=(None, False))
    return Bounds(low, None if high is None else -high, over, under)


def merged(one: Flat, other: Flat) -> Flat:
    """What both ask. Raises RequestError for what cannot be put together."""
    made = Flat(one.place, never=one.never or other.never)
    made.groups = one.groups | other.groups
    made.types = _either(one.types, other.types, common_types)
    made.enum = one.enum if other.enum is None else shared(one.enum, other.enum)
    made.bounds = tighter(one.bounds, other.bounds)
    made.lengths = narrower(one.lengths, other.lengths)
    made.counts = narrower(one.counts, other.counts)
    made.sizes = narrower(one.sizes, other.sizes)
    made.patterns = tuple(dict.fromkeys((*one.patterns, *other.patterns)))
    if one.format and other.format and one.format != other.format:
        raise refused(f"{other.place}.format", f"{other.format!r} beside {one.format!r}")
    made.format = one.format or other.format
    made.required = tuple(dict.fromkeys((*one.required, *other.required)))
    made.names = joined(one.names, other.names)
    made.additional = _either(one.additional, other.additional, joined)
    made.by_pattern = dict(one.by_pattern)
    for name, parts in other.by_pattern.items():
        made.by_pattern[name] = joined(made.by_pattern.get(name, ANYTHING), parts)
    for name in dict.fromkeys((*one.properties, *other.properties)):
        made.properties[name] = joined(_property(one, name), _property(other, name))
    longest = max(len(one.prefix), len(other.prefix))
    made.prefix = tuple(joined(_item(one, at), _item(other, at)) for at in range(longest))
    made.items = _either(one.items, other.items, joined)
    return made


def _property(flat: Flat, name: str) -> Parts:
    if name in flat.properties:
        return flat.properties[name]
    if flat.by_pattern:  # the name may be one of those
        raise refused(f"{flat.place}.patternProperties", "not beside properties; leave it out")
    return flat.additional or ANYTHING


def _item(flat: Flat, at: int) -> Parts:
    return flat.prefix[at] if at < len(flat.prefix) else flat.items or ANYTHING


def _either(one: T | None, other: T | None, both: Callable[[T, T], T]) -> T | None:
    return other if one is None else one if other is None else both(one, other)


def joined(one: Parts, other: Parts) -> Parts:
    """Both, each once, in an order that does not depend on how they came together."""
    places = {part.place: part for part in (*one, *other)}
    return tuple(places[place] for place in sorted(places))


def narrower(one: tuple[int, int | None], other: tuple[int, int | None]) -> tuple[int, int | None]:
    """What is within both."""
    tops = [top for top in (one[1], other[1]) if top is not None]
    return max(one[0], other[0]), min(tops) if tops else None


def common_types(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """The types that are of both; an integer is a number."""
    found = set(one & other)
    if ("integer" in one and "number" in other) or ("number" in one and "integer" in other):
        found.add("integer")
    return frozenset(found)


def shared(one: list[Any] | None, other: list[Any]) -> list[Any]:
    """The values that are in both."""
    if one is None:
        return other
    if len(one) * len(other) > GUIDE_PARTS * 100:
        raise refused_by(f"two enums of so many values (guide_parts is {GUIDE_PARTS})")
    return [value for value in one if any(same(value, each) for each in other)]


def same(one: Any, other: Any) -> bool:
    """Whether two values are one to JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(same(a, b) for a, b in pairs)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)
