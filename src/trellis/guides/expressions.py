# SPDX-License-Identifier: Apache-2.0
"""Regular expressions as grammars: of a whole answer, or of what a JSON string holds.

Python's own parser reads them; what it and ECMA-262 read differently, and what is no regular
language (looking around, going back), is rejected. \\d, \\w and \\s are ASCII's.
"""

import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

from trellis.guides.characters import ASCII, both, in_string, one_of, others, ranges
from trellis.guides.limits import ENDLESS, GUIDE_DEPTH, GUIDE_TIMES, refused
from trellis.guides.nodes import EMPTY, Node, Ranges, choice, many, sequence

if sys.version_info >= (3, 11):
    from re import _constants as codes  # type: ignore[attr-defined]
    from re import _parser as parser  # type: ignore[attr-defined]
else:
    import sre_constants as codes
    import sre_parse as parser

LINE_ENDS = ranges((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))  # what "." leaves out
DIGITS = ranges((0x30, 0x39))
WORD = ranges((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
SPACES = ranges((0x09, 0x0D), (0x20, 0x20))
UNICODE_SPACES = ranges(
    *SPACES, (0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A),
    (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
NOT_ASCII = others(ASCII)  # letters of others are letters and digits to some, to others not
# The least and the most that a category is to anyone.
CATEGORIES: dict[Any, tuple[Ranges, Ranges]] = {
    codes.CATEGORY_DIGIT: (DIGITS, ranges(*DIGITS, *NOT_ASCII)),
    codes.CATEGORY_NOT_DIGIT: (both(others(DIGITS), ASCII), others(DIGITS)),
    codes.CATEGORY_WORD: (WORD, ranges(*WORD, *NOT_ASCII)),
    codes.CATEGORY_NOT_WORD: (both(others(WORD), ASCII), others(WORD)),
    codes.CATEGORY_SPACE: (SPACES, UNICODE_SPACES),
    codes.CATEGORY_NOT_SPACE: (others(UNICODE_SPACES), others(SPACES)),
}
BEGINS = {codes.AT_BEGINNING, codes.AT_BEGINNING_STRING}
ENDS = {codes.AT_END, codes.AT_END_STRING}
WITHOUT = {
    codes.AT: "^ and $ stand at its begin and end alone, and there is no \\b",
    codes.ASSERT: "there is no looking ahead or back",
    codes.ASSERT_NOT: "there is no looking ahead or back",
    codes.GROUPREF: "there is no going back to a group",
    codes.GROUPREF_EXISTS: "there is no going back to a group",
}
FLAGS = re.IGNORECASE | re.MULTILINE | re.DOTALL | re.VERBOSE | re.LOCALE


class Expression:
    """One expression, read."""

    def __init__(self, pattern: str, place: str) -> None:
        """Raises RequestError with `place` for what is none, and for what no grammar is."""
        self._place = place
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                parsed: Any = parser.parse(pattern)
        except (re.error, ValueError, OverflowError, RecursionError) as error:
            raise self._refused(f"not a regular expression as it is read here: {error}") from None
        if parsed.state.flags & FLAGS:
            raise self._refused("flags (?...) are not supported by this engine's grammars")
        if re.search(r"(?<!\\)\{,", pattern):
            raise self._refused("{,n} has two meanings; write {0,n}")
        branches = [list(parsed)]
        if len(parsed) == 1 and parsed[0][0] is codes.BRANCH:
            branches = [list(each) for each in parsed[0][1][1]]
        self._branches = [self._unanchored(each) for each in branches]
        self._width: tuple[int, int] = parsed.getwidth()

    @property
    def width(self) -> tuple[int, int | None]:
        """How many characters its matches have, where it is anchored; None: without end."""
        low, high = self._width
        if not all(begins and ends for _, begins, ends in self._branches):
            return 0, None
        return low, None if high >= codes.MAXREPEAT else high

    def clamp(self, low: int, high: int | None) -> bool:
        """Have one repeated character alone stay within these lengths; False if it is not that."""
        if len(self._branches) != 1:
            return False
        items, begins, ends = self._branches[0]
        if not (begins and ends and len(items) == 1):
            return False
        kind, value = items[0]
        if kind not in (codes.MAX_REPEAT, codes.MIN_REPEAT) or tuple(value[2].getwidth()) != (1, 1):
            return False
        most = value[1] if value[1] is not codes.MAXREPEAT else None
        tops = [each for each in (most, high) if each is not None]
        clamped = (max(value[0], low), min(tops) if tops else codes.MAXREPEAT, value[2])
        if clamped[1] is not codes.MAXREPEAT and clamped[0] > clamped[1]:
            return False
        self._branches = [([(kind, clamped)], True, True)]
        return True

    def whole(self) -> Node:
        """The grammar of answers that match as a whole."""
        return choice(*(self._items(items, _raw, 0) for items, _, _ in self._branches))

    def in_string(self, anything: Node) -> Node:
        """The grammar of what is in a JSON string in which it is found.

        `anything`: any one character there.
        """
        around = many(anything)
        return choice(
            *(
                sequence(
                    EMPTY if begins else around,
                    self._items(items, in_string, 0),
                    EMPTY if ends else around,
                )
                for items, begins, ends in self._branches
            )
        )

    def _unanchored(self, items: list[Any]) -> tuple[list[Any], bool, bool]:
        """A branch without ^ before and $ behind, and whether they were there."""
        begins = ends = False
        while items and items[0][0] is codes.AT and items[0][1] in BEGINS:
            items, begins = items[1:], True
        while items and items[-1][0] is codes.AT and items[-1][1] in ENDS:
            items, ends = items[:-1], True
        return items, begins, ends

    def _items(self, items: Any, one: Callable[[Ranges], Node], depth: int) -> Node:
        if depth > GUIDE_DEPTH:
            raise self._refused(f"groups inside groups: guide_depth is {GUIDE_DEPTH}")
        return sequence(*(self._item(kind, value, one, depth) for kind, value in items))

    def _item(self, kind: Any, value: Any, one: Callable[[Ranges], Node], depth: int) -> Node:
        if kind is codes.LITERAL:
            return one(ranges((value, value)))
        if kind is codes.NOT_LITERAL:
            return one(others(ranges((value, value))))
        if kind is codes.ANY:
            return one(others(LINE_ENDS))
        if kind is codes.IN:
            return one(self._class(value))
        if kind is codes.BRANCH:
            return choice(*(self._items(each, one, depth + 1) for each in value[1]))
        if kind is codes.SUBPATTERN:
            if value[1] or value[2]:
                raise self._refused("flags (?...) are not supported by this engine's grammars")
            return self._items(value[3], one, depth + 1)
        if kind in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            low, high, part = value
            most = None if high is codes.MAXREPEAT or high >= ENDLESS else int(high)
            if max(low, most or 0) > GUIDE_TIMES:
                raise self._refused(f"{{{low},{high}}}: at most {GUIDE_TIMES} times")
            return many(self._items(part, one, depth + 1), int(low), most)
        raise self._refused(f"{WITHOUT.get(kind, str(kind))}; leave it out")

    def _class(self, members: list[Any]) -> Ranges:
        negated = members[0][0] is codes.NEGATE
        pairs: list[tuple[int, int]] = []
        for kind, value in members[negated:]:
            if kind is codes.LITERAL:
                pairs.append((value, value))
            elif kind is codes.RANGE:
                pairs.append((value[0], value[1]))
            else:
                pairs += CATEGORIES[value][negated]
        taken = ranges(*pairs)
        return others(taken) if negated else taken

    def _refused(self, why: str) -> Exception:
        return refused(self._place, why)


def _raw(taken: Ranges) -> Node:
    """One of these characters as it is."""
    return one_of(taken)
