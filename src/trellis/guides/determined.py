# SPDX-License-Identifier: Apache-2.0
"""Choices of which each character says the way on: `"ab" | "ac"` as `"a" ("b" | "c")`.

The grammar library in OpenVINO GenAI 2026.4 loses its place where several alternatives begin with
the same characters: of 60 answers held to one of 48 words, such as north-east and nord-ouest, seven
were none of them. What has one way on with each character it follows; xgrammar 0.2.8 follows both.

>>> determined(choice(Text("ab"), Text("ac"))).parts
(Text(text='a'), Choice(parts=(Text(text='b'), Text(text='c'))))
"""

import itertools
from collections.abc import Iterator

from trellis.guides.nodes import (
    Chars,
    Choice,
    Many,
    Node,
    Rule,
    Sequence,
    Text,
    choice,
    many,
    optional,
    sequence,
)

MOST_STATES = 20_000  # of one choice; what has more stays as it was written
MOST_DEPTH = 150  # of choices within one another

Range = tuple[int, int]  # characters, from one to another
Way = tuple[Node, ...]  # one after the other; a text is one character
Ways = frozenset[Way]


class _TooMany(Exception):
    """A choice has too many states, or as many as one likes."""


def determined(node: Node) -> Node:
    """The same texts; a choice that refers to rules, or repeats without end, as far as it goes."""
    match node:
        case Sequence(parts):
            return sequence(*map(determined, parts))
        case Many(part, low, high):
            return many(determined(part), low, high)
        case Choice(parts) if parts:
            try:
                return _Choices().node(frozenset(map(_way, parts)))
            except _TooMany:
                return choice(*map(determined, parts))
    return node


def _way(node: Node) -> Way:
    """A node's parts, texts as single characters."""
    match node:
        case Text(text):
            return tuple(map(Text, text))
        case Sequence(parts):
            return tuple(each for part in parts for each in _way(part))
    return (node,)


class _Choices:
    """Makes the node of one choice, and of those below it, each once."""

    def __init__(self) -> None:
        self._made: dict[Ways, Node | None] = {}  # None: while it is made
        self._depth = 0

    def node(self, ways: Ways) -> Node:
        """What any of the ways stands for. Raises _TooMany."""
        if ways not in self._made:
            if len(self._made) >= MOST_STATES or self._depth >= MOST_DEPTH:
                raise _TooMany
            self._made[ways] = None
            self._depth += 1
            self._made[ways] = self._new(ways)
            self._depth -= 1
        made = self._made[ways]
        if made is None:  # it leads to itself
            raise _TooMany
        return made

    def _new(self, ways: Ways) -> Node:
        if len(ways) == 1:
            (way,) = ways
            return sequence(*map(determined, way))
        if (run := _run(ways)) is not None:
            return run
        if shared := _shared(ways):
            rests = frozenset(way[len(shared) :] for way in ways)
            return sequence(*shared, self.node(rests))
        made: list[Node] = []
        ends = () in ways
        for together in _overlapping(ways - {()}):
            if len(together) == 1:
                made.append(self.node(frozenset(together)))
                continue
            ends |= any(_may_end(way) for way in together)
            made += self._by_character([head for way in together for head in _heads(way)])
        node = choice(*made)
        return optional(node) if ends else node

    def _by_character(self, heads: list[tuple[Range, Way]]) -> Iterator[Node]:
        """A node for all characters that go on alike."""
        cuts = sorted({cut for (low, high), _ in heads for cut in (low, high + 1)})
        alike: dict[Ways, list[Range]] = {}
        for low, after in itertools.pairwise(cuts):
            rests = frozenset(rest for (a, b), rest in heads if a <= low <= b)
            ranges = alike.setdefault(rests, [])
            if ranges and ranges[-1][1] + 1 == low:
                ranges[-1] = (ranges[-1][0], after - 1)
            else:
                ranges.append((low, after - 1))
        for rests, ranges in alike.items():
            if rests:
                yield sequence(_characters(tuple(ranges)), self.node(rests))


def _shared(ways: Ways) -> Way:
    """The characters that all begin with."""
    first, *others = ways
    for count, part in enumerate(first):
        known = isinstance(part, (Text, Chars))
        if not known or any(len(way) <= count or way[count] != part for way in others):
            return first[:count]
    return first


def _characters(ranges: tuple[Range, ...]) -> Node:
    one = len(ranges) == 1 and ranges[0][0] == ranges[0][1]
    return Text(chr(ranges[0][0])) if one else Chars(ranges)


def _run(ways: Ways) -> Node | None:
    """Where all are the same part some times, and then the same: as a repetition."""
    part = max(ways, key=len)[0]  # the longest has the most of it
    if not isinstance(part, (Text, Chars)):
        return None
    counts, rests = set(), set()
    for way in ways:
        count = 0
        while count < len(way) and way[count] == part:
            count += 1
        counts.add(count)
        rests.add(way[count:])
    if len(rests) != 1 or max(counts) - min(counts) + 1 != len(counts):
        return None
    (rest,) = rests
    return sequence(many(part, min(counts), max(counts)), *map(determined, rest))


def _overlapping(ways: Ways) -> list[list[Way]]:
    """Those together that share a first character; what begins with a rule is alone."""
    known: list[tuple[int, int, int]] = []  # first and last character, which way
    ordered = sorted(ways, key=repr)
    for number, way in enumerate(ordered):
        known += [(low, high, number) for (low, high), _ in _heads(way)]
    group = list(range(len(ordered)))

    def find(number: int) -> int:
        while group[number] != number:
            number = group[number]
        return number

    reach, last = -1, 0
    for low, high, number in sorted(known):
        if low <= reach:
            group[find(number)] = find(last)
        if high > reach:
            reach, last = high, number
    found: dict[int, list[Way]] = {}
    for number, way in enumerate(ordered):
        found.setdefault(find(number), []).append(way)
    return list(found.values())


def _heads(way: Way) -> list[tuple[Range, Way]]:
    """The first characters of a way, and how it goes on; none if a rule says what they are."""
    if not way:
        return []
    first, rest = way[0], way[1:]
    match first:
        case Text(text):
            return [((ord(text), ord(text)), rest)]
        case Chars(ranges):
            return [(each, rest) for each in ranges]
        case Choice(parts):
            return _all([(*_way(part), *rest) for part in parts])
        case Many(part, low, high):
            more = many(part, max(low - 1, 0), None if high is None else high - 1)
            again = (*_way(part), *_way(more), *rest)
            if _may_end(_way(part)):
                return []
            return _all([again, rest]) if low == 0 and rest else _heads(again)
    return []


def _all(ways: list[Way]) -> list[tuple[Range, Way]]:
    """The heads of each; none if those of one are not known."""
    found = []
    for way in ways:
        heads = _heads(way)
        if not heads and way:
            return []
        found += heads
    return found


def _may_end(way: Way) -> bool:
    """Whether it may be no text at all."""
    return all(map(_empty, way))


def _empty(node: Node) -> bool:
    match node:
        case Text(text):
            return not text
        case Choice(parts):
            return any(map(_empty, parts))
        case Sequence(parts):
            return all(map(_empty, parts))
        case Many(part, low, _):
            return not low or _empty(part)
        case Rule():
            return False
    return False
