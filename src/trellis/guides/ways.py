# SPDX-License-Identifier: Apache-2.0
"""The ways that a choice may go: which characters may come first, and what may follow each.

A way is parts one after the other: single characters, classes, repetitions and rules. What is
nested in a part is a rule of its own, under a name that no grammar has, so that ways are quickly
told apart.

>>> ways = Ways({"digit": Chars(((48, 57),))})
>>> ways.begin()
>>> ways.heads((Rule("digit"), Text("!")), frozenset())
[((48, 57), (Text(text='!'),))]
"""

from collections.abc import Iterable, Mapping, Set

from trellis.errors import TrellisError
from trellis.guides.nodes import (
    Chars,
    Choice,
    Many,
    Node,
    Rule,
    Sequence,
    Text,
    many,
    rule_names,
    rules_that,
)

MOST_DEPTH = 150  # of rules in rules until a character
MOST_WORK = 200_000  # parts and first characters that are looked at for one choice
MOST_TRIES = 5  # choices of a guide that may need all of it

Range = tuple[int, int]  # characters, from one to another
Way = tuple[Node, ...]
Heads = list[tuple[Range, Way]]  # first characters, and how it goes on behind them


class TooManyError(TrellisError):
    """A choice has too many states, or as many as one likes."""


class Work:
    """What is left of what may be done for one guide, whose grammars share it."""

    def __init__(self) -> None:
        self.left = MOST_TRIES * MOST_WORK


class Ways:
    """The ways of one grammar's nodes."""

    def __init__(self, rules: Mapping[str, Node], work: Work | None = None) -> None:
        """`work`: that of the guide that it is a part of, if it is not all of it."""
        self._rules = rules
        self._inner: dict[Node, Rule] = {}
        self.nested: dict[str, Node] = {}  # by the name of the rule that stands for it
        self._alternatives: dict[str, list[Way]] = {}
        self._guide = work or Work()
        self._work = 0  # left for one choice
        self._empty = rules_that(rules, self.empty)
        self.recursive = circles({name: set(rule_names(node)) for name, node in rules.items()})
        # Of which no first character is found: they may begin with themselves.
        self.left_recursive = circles({name: self._leading(rules[name]) for name in rules})

    def begin(self) -> None:
        """Count the work for one choice from here on. Raises TooManyError if none is left."""
        if self._guide.left <= 0:
            raise TooManyError
        self._work = MOST_WORK

    def count(self, work: int) -> None:
        """Raises TooManyError at the limit for one choice."""
        self._work -= work
        self._guide.left -= work
        if self._work < 0:
            raise TooManyError

    def of(self, node: Node) -> Way:
        """A node's parts."""
        match node:
            case Text(text):
                return tuple(map(Text, text))
            case Sequence(parts):
                return tuple(each for part in parts for each in self.of(part))
            case Many(part, low, high) if not _is_plain(part):
                return (Many(self._rule(part), low, high),)
            case Choice():
                return (self._rule(node),)
        return (node,)

    def heads(self, way: Way, opaque: frozenset[str], depth: int = 0) -> Heads | None:
        """Its first characters; None if they are a rule's in `opaque`. Raises TooManyError."""
        if not way:
            return []
        first, rest = way[0], way[1:]
        found: Heads | None = []
        match first:
            case Text(text):
                found = [((ord(text), ord(text)), rest)]
            case Chars(ranges):
                found = [(each, rest) for each in ranges]
            case Many():
                found = self._of_many(first, rest, opaque, depth)
            case Rule(name):
                if name in opaque or depth > MOST_DEPTH:
                    return None
                made = [(*each, *rest) for each in self.alternatives(name)]
                found = _all(self.heads(each, opaque, depth + 1) for each in made)
        self.count(1 + len(found or ()))
        return found

    def _of_many(self, many_: Many, rest: Way, opaque: frozenset[str], depth: int) -> Heads | None:
        part, low, high = many_.part, many_.low, many_.high
        inner = self.heads((part,), opaque, depth + 1)
        if inner is None:
            return None
        again = self.of(many(part, max(low - 1, 0), None if high is None else high - 1))
        found = [(each, (*behind, *again, *rest)) for each, behind in inner]
        if low and not self.empty(part):
            return found
        behind_it = self.heads(rest, opaque, depth + 1)
        return None if behind_it is None else [*found, *behind_it]

    def alternatives(self, name: str) -> list[Way]:
        """The ways of a rule."""
        if name not in self._alternatives:
            node = self.nested[name] if name in self.nested else self._rules[name]
            parts = node.parts if isinstance(node, Choice) else (node,)
            self._alternatives[name] = [self.of(part) for part in parts]
        return self._alternatives[name]

    def empty(self, node: Node, rules: Set[str] | None = None) -> bool:
        """Whether it may be no text at all; `rules`: those that may be, else the grammar's own."""
        known = self._empty if rules is None else rules
        match node:
            case Text(text):
                return not text
            case Choice(parts):
                return any(self.empty(part, known) for part in parts)
            case Sequence(parts):
                return all(self.empty(part, known) for part in parts)
            case Many(part, low, _):
                return not low or self.empty(part, known)
            case Rule(name):
                return name in known or (
                    name in self.nested and self.empty(self.nested[name], known)
                )
        return False

    def _rule(self, node: Node) -> Rule:
        if node not in self._inner:
            made = self._inner[node] = Rule(f"({len(self._inner)})")
            self.nested[made.name] = node
        return self._inner[node]

    def _leading(self, node: Node) -> set[str]:
        """The rules that may come first in it."""
        match node:
            case Rule(name):
                return {name}
            case Choice(parts):
                return {name for part in parts for name in self._leading(part)}
            case Many(part):
                return self._leading(part)
            case Sequence(parts):
                found: set[str] = set()
                for part in parts:
                    found |= self._leading(part)
                    if not self.empty(part):
                        break
                return found
        return set()


def weight(part: Node) -> int:
    """What a part costs where ways are told apart."""
    match part:
        case Chars(ranges):
            return len(ranges)
        case Many(inner):
            return weight(inner)
    return 1


def _is_plain(node: Node) -> bool:
    return isinstance(node, (Chars, Rule)) or (isinstance(node, Text) and len(node.text) == 1)


def _all(each: Iterable[Heads | None]) -> Heads | None:
    found: Heads = []
    for heads in each:
        if heads is None:
            return None
        found += heads
    return found


def circles(edges: dict[str, set[str]]) -> frozenset[str]:
    """The names that lead back to themselves, and those between two such."""
    left = {name: {each for each in to if each in edges} for name, to in edges.items()}
    for _ in range(2):  # without what leads to none; then, turned round, without what none leads to
        turned: dict[str, set[str]] = {name: set() for name in left}
        for name, to in left.items():
            for each in to:
                turned[each].add(name)
        todo = [name for name, to in left.items() if not to]
        while todo:
            name = todo.pop()
            for each in turned.pop(name):
                left[each].discard(name)
                if not left[each]:
                    todo.append(each)
            del left[name]
        left = {name: {each for each in turned[name] if each in left} for name in left}
    return frozenset(left)
