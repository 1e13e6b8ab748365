# SPDX-License-Identifier: Apache-2.0
"""Markers in a text that comes in pieces: only what may still become one is held back."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.parsing import cut
from trellis.parsers.markers import Found, Markers
from trellis.parsers.reader import Reader, Steps


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("plain", Found(5, "")),
        ("plain <b", Found(6, "")),
        ("plain <b>", Found(6, "<b>")),
        ("a\n", Found(1, "")),
        ("a\n<b>", Found(1, "\n<b>")),
        ("<<b>", Found(1, "<b>")),
        ("<b><b>", Found(0, "<b>")),
        ("", Found(0, "")),
    ],
)  # fmt: skip
def test_the_first_marker_counts_and_a_beginning_waits(text: str, found: Found) -> None:
    assert Markers("<b>", "\n<b>").find(text, 0, final=False) == found


def test_at_the_end_nothing_waits() -> None:
    assert Markers("<b>").find("a <b", 0, final=True) == Found(4, "")


def test_a_marker_that_another_begins_with_waits_for_the_longer_one() -> None:
    markers = Markers("ab", "abc")

    assert markers.find("ab", 0, final=False) == Found(0, "")
    assert markers.find("abd", 0, final=False) == Found(0, "ab")
    assert markers.find("abc", 0, final=False) == Found(0, "abc")
    assert markers.find("ab", 0, final=True) == Found(0, "ab")


@given(st.text("ab<>/", max_size=40), st.randoms(use_true_random=False))
def test_pieces_of_a_text_are_split_as_the_whole_is(text: str, dice: random.Random) -> None:
    assert split(cut(text, dice)) == split([text])


def split(pieces: list[str]) -> tuple[str, str]:
    """The text before the first marker, and the marker."""
    reader = Reader()
    before: list[str] = []
    found: list[str] = []

    def read() -> Steps[None]:
        found.append((yield from reader.until(Markers("<a>", "</a>", "a<b", "ab"), before.append)))

    steps = read()
    for piece in pieces:
        reader.push(piece)
        next(steps, None)
    reader.close()
    next(steps, None)
    return "".join(before), found[0]
