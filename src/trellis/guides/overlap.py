# SPDX-License-Identifier: Apache-2.0
"""Whether one document can be valid under two schemas: what `oneOf` must exclude."""

from collections.abc import Callable

from trellis.guides.flat import Flat, Parts, common_types, narrower, same, tighter
from trellis.guides.keywords import TYPES
from trellis.guides.values import meets

ANY_TYPE = frozenset(TYPES)
Shallow = Callable[[Parts], list[Flat]]


def overlap(
    one: Flat, other: Flat, shallow: Shallow, alone: bool = False, deep: bool = True
) -> bool:
    """Whether it may be; False is certain. `shallow`: the alternatives of a property.

    `alone`: nothing stands beside the schemas, so that answers have the types of `made_types`.
    """
    if one.never or other.never:
        return False
    if one.enum is not None and other.enum is not None:
        return any(
            same(a, b) and meets(a, one) and meets(a, other) for a in one.enum for b in other.enum
        )
    for listed, rest in ((one, other), (other, one)):
        if listed.enum is not None:
            return any(meets(value, listed) and meets(value, rest) for value in listed.enum)
    types = common_types(one.types or ANY_TYPE, other.types or ANY_TYPE)
    if alone:
        types = common_types(made_types(one), other.types or ANY_TYPE)
        types |= common_types(made_types(other), one.types or ANY_TYPE)
    return any(_of_type(name, one, other, shallow, deep) for name in types)


def made_types(flat: Flat) -> frozenset[str]:
    """The types that answers have: without `type` those that the keywords speak of."""
    return flat.types if flat.types is not None else flat.groups or ANY_TYPE


def _of_type(name: str, one: Flat, other: Flat, shallow: Shallow, deep: bool) -> bool:
    if name in ("integer", "number"):
        bounds = tighter(one.bounds, other.bounds)
        if bounds.low is None or bounds.high is None:
            return True
        return bounds.low < bounds.high or (
            bounds.low == bounds.high and not (bounds.over or bounds.under)
        )
    if name == "string":
        return _some(narrower(one.lengths, other.lengths))
    if name == "array":
        return _some(narrower(one.sizes, other.sizes))
    if name == "object" and deep:
        return not (_apart(one, other, shallow) or _apart(other, one, shallow))
    return True


def _some(pair: tuple[int, int | None]) -> bool:
    return pair[1] is None or pair[0] <= pair[1]


def _apart(one: Flat, other: Flat, shallow: Shallow) -> bool:
    """Whether a property that `one` requires is none that `other` allows."""
    for name in one.required:
        if name in one.properties and name in other.properties:
            theirs = shallow(other.properties[name])
            ours = shallow(one.properties[name])
            if not any(overlap(a, b, shallow, deep=False) for a in ours for b in theirs):
                return True
        closed = other.additional is not None and any(p.schema is False for p in other.additional)
        if name not in other.properties and not other.by_pattern and closed:
            return True
    return False
