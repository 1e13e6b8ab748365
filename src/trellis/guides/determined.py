# SPDX-License-Identifier: Apache-2.0
"""Choices of which each character says the way on: `"ab" | "ac"` as `"a" ("b" | "c")`.

The grammar library in OpenVINO GenAI 2026.4 loses its place where several alternatives begin with
the same characters: of 60 answers held to one of 48 words, such as north-east and nord-ouest, seven
were none of them. It puts rules that have no rules in them where they are referred to, so it does
there, too. What has one way on with each character it follows; xgrammar 0.2.8 follows both.

>>> determined(choice(Text("ab"), Text("ac")), {})[0].parts
(Text(text='a'), Choice(parts=(Text(text='b'), Text(text='c'))))
"""

import itertools
from collections.abc import Callable, Iterator, Mapping

from trellis.guides.nodes import (
    EMPTY,
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
    replaced,
    sequence,
)
from trellis.guides.states import written_out
from trellis.guides.ways import Heads, Range, TooManyError, Way, Ways, Work, weight

MOST_STATES = 20_000  # of one choice; what has more stays as it was written

State = frozenset[Way]  # any of these


def determined(
    root: Node,
    rules: Mapping[str, Node],
    opaque: frozenset[str] = frozenset(),
    work: Work | None = None,
) -> tuple[Node, dict[str, Node]]:
    """The same texts: the root and the rules, with those that were made for it.

    `opaque`: rules that no choice looks into. A choice has alternatives that begin alike after it
    where one begins with such a rule or with one that begins with itself, and where what tells them
    apart has no end: `"(" a ")" | "(" a "]"` is told apart, `"(" a ")" | "(" b "]"` is not if `a`
    and `b` refer to themselves and begin alike. `work`: what is left of it for the guide that the
    grammar is a part of.
    """
    made = _Grammar(rules, opaque, work)
    root = made.node(root)
    found = {name: made.node(node) for name, node in rules.items()}
    return root, found | made.made


class _Grammar:
    """Makes the nodes of one grammar, each once."""

    def __init__(
        self, rules: Mapping[str, Node], opaque: frozenset[str], work: Work | None
    ) -> None:
        self.ways = Ways(rules, work)
        self.made: dict[str, Node] = {}
        self._rules = rules
        self._names = 0
        opaque |= self.ways.left_recursive
        looked_into = (opaque, opaque | self.ways.recursive, frozenset(rules))
        self._opaque = tuple(dict.fromkeys(looked_into))
        self._known: dict[Node, Node | None] = {}  # None: while it is made
        self._needed: dict[Node, str] = {}  # the names of those that are in themselves

    def node(self, node: Node) -> Node:
        """The same texts."""
        match node:
            case Sequence(parts):
                return sequence(*map(self.node, parts))
            case Many(part, low, high):
                return many(self.node(part), low, high)
            case Choice(parts) if parts:
                return self._once(node, parts)
            case Rule(name) if name in self.ways.nested:
                return self.node(self.ways.nested[name])
        return node

    def _once(self, node: Node, parts: tuple[Node, ...]) -> Node:
        if node not in self._known:
            self._known[node] = None
            made = self._choice(parts)
            if node in self._needed:
                self.made[self._needed[node]] = made
                made = Rule(self._needed[node])
            self._known[node] = made
        known = self._known[node]
        if known is not None:
            return known
        if node not in self._needed:
            self._needed[node] = self._name()
        return Rule(self._needed[node])

    def _choice(self, parts: tuple[Node, ...]) -> Node:
        start = frozenset(map(self.ways.of, parts))
        for opaque in self._opaque:
            try:
                self.ways.begin()
                bodies = _States(self.ways, opaque).bodies(start)
                root, more = written_out(bodies, self._name)
            except TooManyError:
                continue
            self.made |= {name: self._inside(each) for name, each in more.items()}
            return self._inside(root)
        return choice(*map(self.node, parts))

    def _inside(self, node: Node) -> Node:
        """A node whose choices are told apart, with what is nested in their ways."""
        return replaced(node, self.node)

    def _name(self) -> str:
        self._names += 1
        while f"s{self._names}" in self._rules:
            self._names += 1
        return f"s{self._names}"


class _States:
    """What may follow each beginning of one choice."""

    def __init__(self, ways: Ways, opaque: frozenset[str]) -> None:
        """`opaque`: rules that are not looked into."""
        self._ways = ways
        self._opaque = opaque
        self._numbers: dict[State, int] = {}
        self._todo: list[State] = []

    def bodies(self, start: State) -> list[Node]:
        """A node for each state, the start first; Rule("=1") is state 1. Raises TooManyError."""
        self._state(start)
        made: dict[int, Node] = {}
        while self._todo:
            ways = self._todo.pop()
            made[self._numbers[ways]] = self._body(ways)
        return [made[number] for number in range(len(made))]

    def _state(self, ways: State) -> Node:
        if ways == {()}:
            return EMPTY
        self._ways.count(sum(weight(part) for way in ways for part in way))
        if ways not in self._numbers:
            if len(self._numbers) >= MOST_STATES:
                raise TooManyError
            self._numbers[ways] = len(self._numbers)
            self._todo.append(ways)
        return Rule(f"={self._numbers[ways]}")

    def _body(self, ways: State) -> Node:
        if len(ways) == 1:
            (way,) = ways
            return sequence(*way)
        if (run := self._run(ways)) is not None:
            return run
        if shared := self._shared(ways):
            rests = frozenset(way[len(shared) :] for way in ways)
            return sequence(*shared, self._state(rests))
        heads = {way: self._ways.heads(way, self._opaque) for way in ways}
        made: list[Node] = []
        ends = () in ways
        for together in _overlapping(heads):
            if len(together) == 1 or self._shared(frozenset(together)):
                made.append(self._state(frozenset(together)))
                continue
            ends |= any(all(map(self._ways.empty, way)) for way in together)
            made += self._by_character([each for way in together for each in heads[way] or ()])
        node = choice(*made)
        return optional(node) if ends else node

    def _by_character(self, heads: Heads) -> Iterator[Node]:
        """A node for all characters that go on alike."""
        cuts = sorted({cut for (low, high), _ in heads for cut in (low, high + 1)})
        begins: dict[int, list[tuple[Range, Way]]] = {}
        for each in heads:
            begins.setdefault(each[0][0], []).append(each)
        alike: dict[State, list[Range]] = {}
        here: list[tuple[Range, Way]] = []
        for low, after in itertools.pairwise(cuts):
            here = [each for each in here if each[0][1] >= low] + begins.get(low, [])
            self._ways.count(len(here))
            rests = frozenset(rest for _, rest in here)
            ranges = alike.setdefault(rests, [])
            if ranges and ranges[-1][1] + 1 == low:
                ranges[-1] = (ranges[-1][0], after - 1)
            else:
                ranges.append((low, after - 1))
        for rests, ranges in alike.items():
            if rests:
                yield sequence(_characters(tuple(ranges)), self._state(rests))

    def _shared(self, ways: State) -> Way:
        """What all begin with: characters, and rules that are not to be looked into."""
        first, *others = ways
        for count, part in enumerate(first):
            if not isinstance(part, (Text, Chars)) and not (
                isinstance(part, Rule)
                and (part.name in self._opaque or part.name in self._ways.recursive)
            ):
                return first[:count]
            if any(len(way) <= count or way[count] != part for way in others):
                return first[:count]
        return first

    def _run(self, ways: State) -> Node | None:
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
        return sequence(many(part, min(counts), max(counts)), *rest)


def _characters(ranges: tuple[Range, ...]) -> Node:
    one = len(ranges) == 1 and ranges[0][0] == ranges[0][1]
    return Text(chr(ranges[0][0])) if one else Chars(ranges)


def _overlapping(heads: Mapping[Way, Heads | None]) -> list[list[Way]]:
    """Those together that share a first character; what begins with no known one is alone."""
    ordered = sorted((way for way in heads if way), key=repr)
    known: list[tuple[int, int, int]] = []  # first and last character, which way
    for number, way in enumerate(ordered):
        known += [(low, high, number) for (low, high), _ in heads[way] or ()]
    find, join = _groups(len(ordered))
    reach, last = -1, 0
    for low, high, number in sorted(known):
        if low <= reach:
            join(number, last)
        if high > reach:
            reach, last = high, number
    found: dict[int, list[Way]] = {}
    for number, way in enumerate(ordered):
        found.setdefault(find(number), []).append(way)
    return list(found.values())


def _groups(count: int) -> tuple[Callable[[int], int], Callable[[int, int], None]]:
    """Which group a number is in, and what puts the groups of two together."""
    group = list(range(count))

    def find(number: int) -> int:
        while group[number] != number:
            group[number] = group[group[number]]
            number = group[number]
        return number

    def join(one: int, other: int) -> None:
        group[find(one)] = find(other)

    return find, join
