# SPDX-License-Identifier: Apache-2.0
"""JSON schemas drawn by hypothesis, of the keywords that guides hold."""

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(
    ["a", "b", "ab", "a.b", "name", 'q"', "é", "\\", "", "properties", "été", "ü1"]
)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(-1000, 1000).map(lambda value: round(value, 3)),
    st.text('ab"\\\n é😀/^]-1\x7f', max_size=6),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
PATTERNS = st.sampled_from(
    [
        "^[a-c]+$",
        "^\\d{3}-\\d{2}$",
        "ab|cd",
        '^[^a"]*$',
        "\\w+@\\w+",
        "^(x|yy){2,4}$",
        "[é\\\\]",
        "^[\\^-~]+$",
        "^[^!-\\]]{2}$",
        "^(é1|[ü^]b)+$",
        "^.$",
    ]
)
FORMATS = [
    "date",
    "time",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uri",
    "uuid",
]
BOUNDS = st.one_of(st.integers(-300, 300), st.floats(-50, 50).map(lambda value: round(value, 2)))


def _some(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keywords)


COUNTS = st.integers(0, 4)
STRINGS = st.one_of(
    _some(minLength=COUNTS, maxLength=st.integers(0, 9)),
    st.builds(lambda pattern: {"pattern": pattern}, PATTERNS),
    st.builds(lambda name: {"format": name}, st.sampled_from(FORMATS)),
).map(lambda rest: {"type": "string", **rest})
NUMBERS = st.builds(
    lambda kind, rest: {"type": kind, **rest},
    st.sampled_from(["integer", "number"]),
    _some(minimum=BOUNDS, maximum=BOUNDS, exclusiveMinimum=BOUNDS, exclusiveMaximum=BOUNDS),
)
PLAIN = st.one_of(
    STRINGS,
    NUMBERS,
    st.sampled_from([True, {}, {"type": "null"}, {"type": ["boolean", "string"]}, {"$ref": "#"}]),
    st.builds(lambda values: {"enum": values}, st.lists(VALUES, min_size=1, max_size=4)),
    st.builds(lambda value: {"const": value}, VALUES),
)


def _around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(NAMES, inner, max_size=4)
    return st.one_of(
        _some(
            properties=named,
            required=st.lists(NAMES, max_size=2, unique=True),
            additionalProperties=inner | st.booleans(),
            minProperties=COUNTS,
            maxProperties=COUNTS,
        ),
        _some(items=inner, prefixItems=several, minItems=COUNTS, maxItems=COUNTS),
        st.builds(lambda values: {"patternProperties": {"^[ab]+$": values}}, inner),
        st.builds(lambda values: {"anyOf": values}, several),
        st.builds(lambda values: {"allOf": values}, several),
        st.builds(lambda values: {"oneOf": values}, several),
        st.builds(lambda one, two: {**two, "anyOf": [one, {"type": "null"}]}, inner, STRINGS),
    )


def schemas() -> st.SearchStrategy[Any]:
    """Schemas of a few levels; many of them no document meets, and some are not held."""
    return st.recursive(PLAIN, _around, max_leaves=8)
