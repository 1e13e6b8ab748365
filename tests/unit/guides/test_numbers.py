# SPDX-License-Identifier: Apache-2.0
"""Numbers within bounds: those alone, and each of them read in one way."""

from collections import Counter
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.hypothesis_profiles import examples
from trellis.guides.nodes import Chars, Choice, Many, Node, Sequence, Text
from trellis.guides.numbers import DECIMALS, Bounds, decimals, number

VALUES = st.one_of(
    st.integers(-(10**20), 10**20).map(Fraction),
    st.builds(Fraction, st.integers(-(10**9), 10**9), st.sampled_from([1, 10, 100, 1000])),
)


def readings(node: Node, text: str) -> int:
    """In how many ways a node is all of a text."""
    return _ends(node, text, 0)[len(text)]


def _ends(node: Node, text: str, at: int) -> Counter[int]:
    """Where it may end that begins there, and in how many ways."""
    found: Counter[int] = Counter()
    if isinstance(node, Text):
        found[at + len(node.text)] = int(text.startswith(node.text, at))
    elif isinstance(node, Chars):
        inside = at < len(text) and any(a <= ord(text[at]) <= b for a, b in node.ranges)
        found[at + 1] = int(inside)
    elif isinstance(node, Choice):
        for part in node.parts:
            found += _ends(part, text, at)
    elif isinstance(node, Sequence):
        found[at] = 1
        for part in node.parts:
            found = _after(found, part, text)
    else:
        assert isinstance(node, Many)
        assert node.high is not None
        now = Counter({at: 1})
        for times in range(node.high + 1):
            if times >= node.low:
                found += now
            now = _after(now, node.part, text)
    return +found


def _after(begun: Counter[int], node: Node, text: str) -> Counter[int]:
    found: Counter[int] = Counter()
    for at, ways in begun.items():
        for end, more in _ends(node, text, at).items():
            found[end] += ways * more
    return found


@settings(max_examples=examples(1_000))
@given(st.none() | VALUES, st.none() | VALUES, st.booleans(), st.data())
def test_a_number_is_within_and_read_in_one_way(
    low: Fraction | None, high: Fraction | None, out: bool, data: st.DataObject
) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    bounds = Bounds(low, high, over=out, under=out)
    made = number(bounds)
    near = data.draw(st.sampled_from([low, high, Fraction(0)])) or Fraction(0)
    step = data.draw(st.integers(-30, 30))
    places = data.draw(st.integers(0, DECIMALS))
    value = near + Fraction(step, 10**places)
    shown = Decimal(value.numerator) / Decimal(value.denominator)
    for text in (f"{shown:f}", f"{shown:.{decimals(bounds)}f}", f"{int(value)}"):
        ways = readings(made, text)
        assert ways <= 1, text
        if ways:
            _assert_within(Fraction(text), bounds)


def _assert_within(value: Fraction, bounds: Bounds) -> None:
    if bounds.low is not None:
        assert value > bounds.low or (value == bounds.low and not bounds.over)
    if bounds.high is not None:
        assert value < bounds.high or (value == bounds.high and not bounds.under)


@pytest.mark.parametrize("text", ["9999999999999.99", "9999999999999.98", "1.25", "0.00"])
def test_fifteen_digits_under_a_larger_bound_are_read_in_one_way(text: str) -> None:
    made = number(Bounds(high=Fraction(18446744073709551615)))
    assert readings(made, text) == 1
    assert readings(made, "1" + text) == (len(text) < 10)
