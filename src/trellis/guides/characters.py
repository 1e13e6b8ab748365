# SPDX-License-Identifier: Apache-2.0
"""Sets of characters, and how each character stands in a JSON string: in one way alone.

>>> text_in_string('say "é"')
'say \\\\"é\\\\"'
"""

from trellis.guides.nodes import Chars, Node, Ranges, Text, choice, sequence

ALL: Ranges = ((0, 0xD7FF), (0xE000, 0x10FFFF))  # the characters there are
ASCII: Ranges = ((0, 0x7F),)
ESCAPES = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}


def ranges(*pairs: tuple[int, int]) -> Ranges:
    """These in order, joined where they touch, without half characters."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return both(tuple(joined), ALL)


def both(one: Ranges, other: Ranges) -> Ranges:
    """What is in both."""
    return tuple((max(a, c), min(b, d)) for a, b in one for c, d in other if max(a, c) <= min(b, d))


def others(taken: Ranges) -> Ranges:
    """All characters but these."""
    left, start = [], 0
    for first, last in taken:
        left.append((start, first - 1))
        start = last + 1
    return both(tuple((a, b) for a, b in [*left, (start, 0x10FFFF)] if a <= b), ALL)


PLAIN = others(ranges((0, 0x1F), (ord('"'), ord('"')), (ord("\\"), ord("\\"))))
NAMED = Chars(ranges(*((ord(letter), ord(letter)) for letter in ESCAPES.values())))
# Any character of a JSON string but the control characters that have no short escape.
STRING_CHARACTER = choice(Chars(PLAIN), sequence(Text("\\"), NAMED))


def one_of(taken: Ranges) -> Node:
    """One of these characters as it is."""
    if len(taken) == 1 and taken[0][0] == taken[0][1]:
        return Text(chr(taken[0][0]))
    return Chars(taken) if taken else choice()


def in_string(taken: Ranges) -> Node:
    """One of these characters as a JSON string has it.

    Control characters without a short escape stand as \\u00XX, and only where nothing else can.
    """
    plain = both(taken, PLAIN)
    escaped = [
        Text("\\" + letter) for character, letter in ESCAPES.items() if contains(taken, character)
    ]
    made = choice(one_of(plain), *escaped)
    if plain or escaped:
        return made
    return choice(*(Text(f"\\u{code:04x}") for code in range(0x20) if contains(taken, chr(code))))


def contains(taken: Ranges, character: str) -> bool:
    """Whether the set has it."""
    return any(first <= ord(character) <= last for first, last in taken)


def text_in_string(text: str) -> str:
    """A text as it stands between the quotes of a JSON string."""
    return "".join(_one(character) for character in text)


def _one(character: str) -> str:
    if character in ESCAPES:
        return "\\" + ESCAPES[character]
    return f"\\u{ord(character):04x}" if character < " " else character


def is_text(text: str) -> bool:
    """Whether it has no half characters, which no UTF-8 has."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
