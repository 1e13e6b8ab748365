# SPDX-License-Identifier: Apache-2.0
"""Numbers within bounds, digit by digit. What every JSON reader holds exactly: 15 digits.

>>> from trellis.guides.grammar import written
>>> written(integer(5, 12))
'([5-9] | "1" [0-2])'
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from trellis.guides.nodes import EMPTY, NEVER, Chars, Node, Text, choice, many, optional, sequence

DIGITS = 15  # that a float holds
LARGEST = 10**DIGITS - 1
DECIMALS = 9  # that a bound may have
LEAST_DECIMALS = 2  # that a number between bounds has, where it is none of the integers
MORE_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Bounds:
    """From `low` to `high`, None for none; `over` and `under`: without these themselves."""

    low: Fraction | None = None
    high: Fraction | None = None
    over: bool = False
    under: bool = False


def integer(low: int | None, high: int | None) -> Node:
    """An integer from `low` to `high`, of 15 digits unless the bounds are beyond."""
    low = -LARGEST if low is None else low
    top = max(LARGEST, 10 * low)
    high = top if high is None else min(high, top)
    low = max(low, min(-LARGEST, 10 * high))
    made: list[Node] = []
    if low < 0:
        made.append(sequence(Text("-"), _natural(max(1, -high), -low)))
    if high >= 0:
        made.append(_natural(max(0, low), high))
    return choice(*made)


def whole_bounds(bounds: Bounds) -> tuple[int | None, int | None]:
    """The least and the largest integer between."""
    low, high = bounds.low, bounds.high
    least = None if low is None else math.floor(low) + 1 if bounds.over else math.ceil(low)
    most = None if high is None else math.ceil(high) - 1 if bounds.under else math.floor(high)
    return least, most


def number(bounds: Bounds) -> Node:
    """A number in JSON: an integer, a decimal fraction, or one with an exponent."""
    if bounds == Bounds():
        return sequence(optional(Text("-")), _unsigned())
    if bounds == Bounds(low=Fraction(0)):
        return _unsigned()
    return choice(integer(*whole_bounds(bounds)), _fractions(bounds))


def _unsigned() -> Node:
    exponent = sequence(_class("eE"), optional(_class("+-")), many(_digits(), 1, 2))
    fraction = sequence(Text("."), many(_digits(), 1, DIGITS))
    return sequence(_natural(0, LARGEST), optional(fraction), optional(exponent))


def decimals(bounds: Bounds) -> int:
    """How many decimals numbers between these bounds are written with."""
    for count in range(LEAST_DECIMALS, DECIMALS + 1):
        if all((each * 10**count).denominator == 1 for each in _given(bounds)):
            return count
    return DECIMALS


def _given(bounds: Bounds) -> list[Fraction]:
    return [each for each in (bounds.low, bounds.high) if each is not None]


def _fractions(bounds: Bounds) -> Node:
    """Numbers with a point: a fixed count of decimals, and more where those are within, too."""
    count = decimals(bounds)
    scale = 10**count
    scaled = Bounds(
        None if bounds.low is None else bounds.low * scale,
        None if bounds.high is None else bounds.high * scale,
        bounds.over,
        bounds.under,
    )
    low, high = whole_bounds(scaled)
    low = -LARGEST if low is None else max(low, -LARGEST)
    high = LARGEST if high is None else min(high, LARGEST)
    made: list[Node] = []
    if low < 0:
        made.append(sequence(Text("-"), _with_point(max(0, -high), -low, count)))
    if high >= 0:
        made.append(_with_point(max(0, low), high, count))
    return choice(*made)


def _with_point(low: int, high: int, count: int) -> Node:
    """From `low` to `high`, as so many 10**-count; below `high` with more decimals, too."""
    more = max(0, min(MORE_DECIMALS, DIGITS - len(str(high)) - 1))
    if not more:
        return _pointed(low, high, count)
    inside: Node = NEVER
    if high > low:
        inside = sequence(_pointed(low, high - 1, count), many(_digits(), 0, more))
    return choice(inside, _pointed(max(low, high), high, count))


def _pointed(low: int, high: int, count: int) -> Node:
    """Integers with a point before the last `count` digits."""
    made = []
    for first, last in _same_lengths(low, high, count + 1):
        for digits in _between(first, last):
            place = len(digits) - count
            made.append(sequence(*digits[:place], Text("."), *digits[place:]))
    return choice(*made)


def _natural(low: int, high: int) -> Node:
    """An integer of 0 or more."""
    made: list[Node] = []
    full: list[int] = []  # lengths of which every number is within
    for first, last in _same_lengths(low, high, 1):
        if first == "1" + "0" * (len(first) - 1) and last == "9" * len(last):
            full.append(len(first) - 1)
        else:
            made += [sequence(*_joined(digits)) for digits in _between(first, last)]
    if full:
        made.append(sequence(_digits(1, 9), many(_digits(), full[0], full[-1])))
    return choice(*made)


def _joined(digits: list[Node]) -> list[Node]:
    """Any digits at the end as one repetition."""
    plain = len(digits)
    while plain and digits[plain - 1] == _digits():
        plain -= 1
    rest = len(digits) - plain
    return [*digits[:plain], many(_digits(), rest, rest) if rest else EMPTY]


def _same_lengths(low: int, high: int, least: int) -> list[tuple[str, str]]:
    """Bounds of as many digits each, `least` at least."""
    pairs = []
    while low <= high:
        first = str(low).zfill(least)
        last = min(high, 10 ** len(first) - 1)
        if low == 0 and last and least == 1:  # 0 is the only number that begins with it
            last = 0
        pairs.append((first, str(last).zfill(least)))
        low = last + 1
    return pairs


def _between(first: str, last: str) -> list[list[Node]]:
    """The digits of all numbers from `first` to `last`, which have as many."""
    if not first:
        return [[]]
    low, high, rest = int(first[0]), int(last[0]), len(first) - 1
    if first[1:] == "0" * rest and last[1:] == "9" * rest:
        return [[_digits(low, high), *[_digits()] * rest]]
    if low == high:
        return [[_digits(low, low), *digits] for digits in _between(first[1:], last[1:])]
    made = []
    if first[1:] != "0" * rest:
        made += [[_digits(low, low), *more] for more in _between(first[1:], "9" * rest)]
        low += 1
    if last[1:] != "9" * rest:
        made += [[_digits(high, high), *more] for more in _between("0" * rest, last[1:])]
        high -= 1
    if low <= high:
        made.append([_digits(low, high), *[_digits()] * rest])
    return made


def _digits(low: int = 0, high: int = 9) -> Node:
    if low == high:
        return Text(str(low))
    return Chars(((0x30 + low, 0x30 + high),))


def _class(characters: str) -> Node:
    return Chars(tuple(sorted((ord(each), ord(each)) for each in characters)))
