# SPDX-License-Identifier: Apache-2.0
"""JSON schemas as grammars: every document of the grammar is valid, to any validator.

Not every valid document is of the grammar: named properties come in the schema's order, others
come only where the schema says `additionalProperties`, a schema with keywords of objects and
without `type` is one of objects, numbers have 15 digits, and spaces are few.
"""

import json
import math
from collections import Counter
from typing import Any

from trellis.guides.containers import COLON, Members, Property, array, json_object, other_name
from trellis.guides.expressions import Expression
from trellis.guides.flat import ANYTHING, Flat, Parts, Placed, common_types, flat_of, merged
from trellis.guides.grammar import Grammar
from trellis.guides.keywords import TYPES, check, shown, without_ids
from trellis.guides.limits import GUIDE_ELEMENTS, GUIDE_PARTS, refused, refused_by
from trellis.guides.nodes import NEVER, Node, Text, choice, sequence
from trellis.guides.numbers import integer, number, whole_bounds
from trellis.guides.overlap import made_types, overlap
from trellis.guides.references import resolve
from trellis.guides.strings import QUOTE, character, string
from trellis.guides.values import constants

ALTERNATIVES = 256  # of one schema, after its anyOf are put together
LITERALS = {"null": Text("null"), "boolean": choice(Text("true"), Text("false"))}


class SchemaReader:
    """Makes the grammar of one schema's documents."""

    def __init__(self, schema: Any, grammar: Grammar, place: str = "$") -> None:
        """`place`: of the schema in the guide. Raises RequestError for what is no schema."""
        if not isinstance(schema, (dict, bool)):
            raise refused(place, "not a schema; send an object, or true")
        self._root = Placed(place, without_ids(schema))
        self._grammar = grammar
        self._parts = self._levels = 0
        self._comparing = False

    def read(self) -> Node:
        """The grammar's root. Raises RequestError, with the place, for what is not held."""
        return self._value((self._root,))

    def _value(self, parts: Parts, within: frozenset[Any] = frozenset()) -> Node:
        """What meets all of these.

        `within`: keys of schemas that are the same value's.
        """
        followed = map(self._followed, parts)
        parts = tuple({part.place: part for part in followed if part.schema is not True}.values())
        if not parts:
            return self._anything()
        key = ("value", tuple(sorted(part.place for part in parts)))
        if key in within:
            raise refused(parts[0].place, "$ref: refers to itself")
        return self._grammar.rule(key, lambda: self._made(parts, within | {key}))

    def _followed(self, part: Placed) -> Placed:
        """What a schema that is a reference alone refers to."""
        seen = set()
        while isinstance(part.schema, dict) and "$ref" in part.schema:
            if check(part.schema, part.place).keys() != {"$ref"}:
                break
            if part.place in seen:
                raise refused(part.place, "$ref: refers to itself")
            seen.add(part.place)
            part = resolve(self._root, part)
        return part

    def _made(self, parts: Parts, within: frozenset[Any]) -> Node:
        self._count()
        place, schema = parts[0]
        if len(parts) == 1 and isinstance(schema, dict):
            kept = check(schema, place)
            if kept.keys() == {"anyOf"} or kept.keys() == {"oneOf"}:
                (name,) = kept
                branches = _branches(kept, name, place)
                if name == "oneOf":
                    self._check_apart(branches, place, frozenset(), alone=True)
                return choice(*(self._value((branch,), within) for branch in branches))
        return choice(*map(self._level, self._flats(parts, frozenset())))

    def _count(self) -> None:
        self._parts += 1
        if self._parts > GUIDE_PARTS:
            raise refused_by(f"more than {GUIDE_PARTS} schemas (guide_parts); make it smaller")

    def _flats(self, parts: Parts, seen: frozenset[str]) -> list[Flat]:
        """The alternatives that meet all of these."""
        made: list[Flat] | None = None
        for part in parts:
            flats = self._flat(part, seen)
            made = flats if made is None else self._product(made, flats, part.place)
        return made if made is not None else [Flat("$")]

    def _flat(self, part: Placed, seen: frozenset[str]) -> list[Flat]:
        place, schema = part
        if isinstance(schema, bool):
            return [Flat(place, never=not schema)]
        if place in seen:
            raise refused(place, "refers to itself beside other keywords")
        self._count()
        seen |= {place}
        kept = check(schema, place)
        made = [flat_of(kept, place)]
        if "$ref" in kept:
            made = self._product(made, self._flat(resolve(self._root, part), seen), place)
        for branch in _branches(kept, "allOf", place):
            made = self._product(made, self._flat(branch, seen), place)
        for name in ("anyOf", "oneOf"):
            branches = _branches(kept, name, place)
            if branches:
                if name == "oneOf":
                    self._check_apart(branches, place, seen, alone=False)
                flats = [flat for branch in branches for flat in self._flat(branch, seen)]
                made = self._product(made, flats, place)
        return made

    def _product(self, ones: list[Flat], others: list[Flat], place: str) -> list[Flat]:
        if len(ones) * len(others) > ALTERNATIVES:
            raise refused(place, f"more than {ALTERNATIVES} alternatives; make it smaller")
        return [merged(one, other) for one in ones for other in others]

    def _check_apart(
        self, branches: list[Placed], place: str, seen: frozenset[str], alone: bool
    ) -> None:
        """Raise RequestError unless no document can meet two branches of a oneOf.

        `alone`: nothing stands beside it.
        """
        if self._comparing:  # another oneOf, of which what is in it is more than it lets through
            return
        self._comparing = True
        flats = [self._flat(branch, seen) for branch in branches]
        for at, ones in enumerate(flats):
            for others in flats[at + 1 :]:
                if any(
                    overlap(one, other, self._shallow, alone) for one in ones for other in others
                ):
                    raise refused(
                        f"{place}.oneOf",
                        "a document could be valid under two of its schemas; use anyOf, or give"
                        " each a required property with a const of its own",
                    )
        self._comparing = False

    def _shallow(self, parts: Parts) -> list[Flat]:
        """What a property asks, without what is in it."""
        return self._flats(tuple(map(self._followed, parts)), frozenset())

    def _level(self, flat: Flat) -> Node:
        if flat.never:
            return NEVER
        if flat.enum is not None:
            return constants(flat)
        types = made_types(flat)
        if "number" in types:
            types = types - {"integer"}
        self._levels += 1
        key = ("object", self._levels)
        return choice(*(self._of_type(name, flat, key) for name in TYPES if name in types))

    def _of_type(self, name: str, flat: Flat, key: Any) -> Node:
        if name in LITERALS:
            return LITERALS[name]
        if name == "integer":
            return integer(*whole_bounds(flat.bounds))
        if name == "number":
            return number(flat.bounds)
        if name == "string":
            return string(self._grammar, flat.lengths, flat.patterns, flat.format, flat.place)
        if name == "array":
            return self._array(flat)
        return self._object(flat, key)

    def _array(self, flat: Flat) -> Node:
        prefix = [self._value(parts) for parts in flat.prefix]
        low, high = flat.sizes
        if flat.items is None and prefix and low <= len(prefix):
            high = min(len(prefix), len(prefix) if high is None else high)
        items = self._value(flat.items or ANYTHING)
        return array(prefix, items, low, high)

    def _object(self, flat: Flat, key: Any) -> Node:
        named = dict(flat.properties)
        for name in flat.required:
            if flat.by_pattern and name not in named:
                raise refused(f"{flat.place}.patternProperties", "not beside required")
            named.setdefault(name, flat.additional or ANYTHING)
        members = Members(
            tuple(
                Property(name, self._value(parts), name in flat.required)
                for name, parts in named.items()
            ),
            self._free(flat, list(named)),
            *flat.counts,
        )
        self._check_counts(flat, members)
        return json_object(self._grammar, key, members)

    def _check_counts(self, flat: Flat, members: Members) -> None:
        """Raise RequestError for a count that free names, which may be equal, do not keep.

        And for one that takes too many rules: of each property by each count before it.
        """
        counted = max(1, flat.counts[0], 0 if flat.counts[1] is None else flat.counts[1] + 1)
        size = len(members.named) * min(counted, len(members.named))
        if counted > 1 and size > GUIDE_ELEMENTS:
            name = "minProperties" if flat.counts[1] is None else "maxProperties"
            raise refused(
                f"{flat.place}.{name}",
                f"{size} counts, and guide_elements is {GUIDE_ELEMENTS}; leave it out",
            )
        surely = len(flat.required) + (0 if flat.required else 1)
        if members.free != NEVER and flat.counts[0] > surely:
            raise refused(
                f"{flat.place}.minProperties",
                "names that the schema does not have may come twice; leave it out, or name the"
                " properties and say additionalProperties: false",
            )

    def _free(self, flat: Flat, named: list[str]) -> Node:
        """A key and value of a property that is not named; NEVER: there are none."""
        if flat.by_pattern:
            return self._by_pattern(flat, named)
        closed = any(part.schema is False for part in flat.additional or ())
        if closed or (flat.additional is None and named):
            return NEVER
        value = self._value(flat.additional or ANYTHING)
        name = other_name(self._grammar, named)
        if flat.names:
            if named:
                raise refused(f"{flat.place}.propertyNames", "not beside properties")
            name = self._names(flat)
        return sequence(name, COLON, value)

    def _by_pattern(self, flat: Flat, named: list[str]) -> Node:
        place = f"{flat.place}.patternProperties"
        closed = flat.additional is not None and all(p.schema is False for p in flat.additional)
        if (
            named
            or flat.names
            or len(flat.by_pattern) > 1
            or not (closed or flat.additional is None)
        ):
            raise refused(
                place, "one expression alone, not beside properties, propertyNames or others"
            )
        ((pattern, parts),) = flat.by_pattern.items()
        name = Expression(pattern, place).in_string(character(self._grammar))
        return sequence(QUOTE, name, QUOTE, COLON, self._value(parts))

    def _names(self, flat: Flat) -> Node:
        """The names that `propertyNames` allows, which are strings whatever it says."""
        made = []
        for each in self._flats(flat.names, frozenset()):
            each.types = common_types(each.types or frozenset(TYPES), frozenset(("string",)))
            made.append(self._level(each))
        return choice(*made)

    def _anything(self) -> Node:
        return self._grammar.rule("anything", lambda: self._level(Flat("$")))


def _branches(kept: dict[str, Any], name: str, place: str) -> list[Placed]:
    return [
        Placed(f"{place}.{name}[{number}]", schema)
        for number, schema in enumerate(kept.get(name, []))
    ]


def parse_json(text: str, place: str) -> Any:
    """JSON that any reader has alike. Raises RequestError."""
    try:
        return json.loads(
            text, parse_constant=_no_number, parse_float=_number, object_pairs_hook=_object
        )
    except (ValueError, RecursionError) as error:
        raise refused(place, f"not JSON: {error}") from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{shown(text)} is too large a number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):  # of which readers take the first or the last
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{shown(twice)} is there twice in one object")
    return made
