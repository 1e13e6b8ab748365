# SPDX-License-Identifier: Apache-2.0
"""Runs a format's parser over texts that are cut anywhere."""

import random
from collections.abc import Iterable

from trellis.parsers import Event, Format, Setup, join_events


def parse(format: Format, pieces: Iterable[str], setup: Setup | None = None) -> list[Event]:
    """The events of an answer that comes in these pieces, joined."""
    parser = format.parser(setup or Setup())
    events = [event for piece in pieces for event in parser.feed(piece)]
    return join_events([*events, *parser.end()])


def cut(text: str, dice: random.Random) -> list[str]:
    """A text in pieces: of a few characters or of many, and empty ones."""
    count = dice.choice((1, 2, 3, 5, max(len(text) // 4, 1)))
    places = sorted(dice.randint(0, len(text)) for _ in range(count))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def check_cuts(format: Format, text: str, cuts: int, dice: random.Random, setup: Setup) -> None:
    """Every cut of a text gives what the whole text gives."""
    whole = parse(format, [text], setup)
    assert parse(format, text, setup) == whole, (format.name, text, setup)
    for _ in range(cuts - 1):
        pieces = cut(text, dice)
        assert parse(format, pieces, setup) == whole, (format.name, pieces, setup)
