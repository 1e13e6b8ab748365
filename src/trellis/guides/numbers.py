# SPDX-License-Identifier: Apache-2.0
"""Numbers within bounds, digit by digit. What every JSON reader holds exactly: 15 digits.

>>> from trellis.guides.grammar import written
>>> written(integer(5, 12))
'("1" [0-2] | [5-9])'
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from trellis.guides.grammar import (
    Chars,
    Node,
    Text,
    choice,
    many,
    optional,
    sequence,
)

DIGITS = 15  # that a float holds
LARGEST = 10**DIGITS - 1
DECIMALS = 9  # that a bound may have
LEAST_DECIMALS = 2  # that a number between bounds has, where it is none of the integers
MORE_DECIMALS = 6

Range = tuple[int, int]  # characters from one to another
Word = tuple[Range | Node, ...]  # a node only at the end
DIGIT, POINT = (0x30, 0x39), (0x2E, 0x2E)


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
    if not more or low > high:
        return _determined(_pointed(low, high, count))
    rest = many(_digits(), 0, more)
    inside = {(*word, rest) for word in _pointed(low, high - 1, count)}
    return _determined(inside | _pointed(max(low, high), high, count))


def _pointed(low: int, high: int, count: int) -> set[Word]:
    """Integers with a point before the last `count` digits."""
    made: set[Word] = set()
    for first, last in _same_lengths(low, high, count + 1):
        place = len(first) - count
        made |= {(*word[:place], POINT, *word[place:]) for word in _between(first, last)}
    return made


def _natural(low: int, high: int) -> Node:
    """An integer of 0 or more."""
    return _determined({word for pair in _same_lengths(low, high, 1) for word in _between(*pair)})


def _determined(words: Iterable[Word]) -> Node:
    """What any of the words stands for, so that each character says which way to go on.

    The words' texts are told apart by their characters. OpenVINO's grammar library loses count of
    the digits where alternatives begin with ranges that overlap: seen with xgrammar's of GenAI
    2026.4, not with 0.2.8.
    """
    words = frozenset(words)
    if (run := _run(words)) is not None:
        return run
    made: list[Node] = []
    ends = [word[0] for word in words if word and not isinstance(word[0], tuple)]
    going = [(word[0], word[1:]) for word in words if word and isinstance(word[0], tuple)]
    cuts = sorted({cut for (low, high), _ in going for cut in (low, high + 1)})
    before: tuple[Range, frozenset[Word]] | None = None
    for low, high in [*itertools.pairwise(cuts), (0, 0)]:
        tails = frozenset(tail for (a, b), tail in going if a <= low <= b)
        if before is not None and before[1] == tails and before[0][1] + 1 == low:
            before = ((before[0][0], high - 1), tails)
            continue
        if before is not None and before[1]:
            made.append(sequence(_range(*before[0]), _determined(before[1])))
        before = ((low, high - 1), tails)
    node = choice(*made, *ends)
    return optional(node) if () in words else node


def _run(words: frozenset[Word]) -> Node | None:
    """Where the words are some digits, and then all the same: these as a repetition."""
    counts, rests = set(), set()
    for word in words:
        count = 0
        while count < len(word) and word[count] == DIGIT:
            count += 1
        counts.add(count)
        rests.add(word[count:])
    if len(rests) != 1 or max(counts) - min(counts) + 1 != len(counts):
        return None
    (rest,) = rests
    nodes = [_range(*item) if isinstance(item, tuple) else item for item in rest]
    return sequence(many(_digits(), min(counts), max(counts)), *nodes)


def _same_lengths(low: int, high: int, least: int) -> list[tuple[str, str]]:
    """Bounds of as many digits each, `least` at least; 0 is the only one that begins with it."""
    pairs = []
    while low <= high:
        first = str(low).zfill(least)
        last = min(high, 10 ** len(first) - 1)
        if first[0] == "0":
            last = min(last, 10 ** (len(first) - 1) - 1)
        pairs.append((first, str(last).zfill(least)))
        low = last + 1
    return pairs


def _between(first: str, last: str) -> list[Word]:
    """The digits of all numbers from `first` to `last`, which have as many."""
    if not first:
        return [()]
    low, high, rest = ord(first[0]), ord(last[0]), len(first) - 1
    if first[1:] == "0" * rest and last[1:] == "9" * rest:
        return [((low, high), *[DIGIT] * rest)]
    if low == high:
        return [((low, low), *word) for word in _between(first[1:], last[1:])]
    made: list[Word] = []
    if first[1:] != "0" * rest:
        made += [((low, low), *word) for word in _between(first[1:], "9" * rest)]
        low += 1
    if last[1:] != "9" * rest:
        made += [((high, high), *word) for word in _between("0" * rest, last[1:])]
        high -= 1
    if low <= high:
        made.append(((low, high), *[DIGIT] * rest))
    return made


def _digits(low: int = 0, high: int = 9) -> Node:
    return _range(0x30 + low, 0x30 + high)


def _range(low: int, high: int) -> Node:
    return Text(chr(low)) if low == high else Chars(((low, high),))


def _class(characters: str) -> Node:
    return Chars(tuple(sorted((ord(each), ord(each)) for each in characters)))
