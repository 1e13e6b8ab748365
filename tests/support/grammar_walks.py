# SPDX-License-Identifier: Apache-2.0
"""Texts of a grammar, drawn at random, without a model and without a library."""

import random

from trellis.guides.ebnf import GrammarReader
from trellis.guides.grammar import Grammar
from trellis.guides.nodes import Chars, Choice, Many, Node, Rule, Sequence, Text

FAR = 10**6
MORE = 4  # repetitions beyond the least


class Walks:
    """Draws texts of one grammar in EBNF."""

    def __init__(self, text: str) -> None:
        grammar = Grammar()
        self._root = GrammarReader(text).read(grammar, "")
        self._rules = grammar.rules
        self._heights: dict[str, int] = dict.fromkeys(self._rules, FAR)
        changed = True
        while changed:
            changed = False
            for name, node in self._rules.items():
                height = 1 + self._height(node)
                if height < self._heights[name]:
                    self._heights[name], changed = height, True

    def draw(self, chance: random.Random, depth: int = 12) -> str:
        """One text; below `depth` rules the shortest way is taken."""
        return self._text(self._root, chance, depth)

    def takes(self, text: str) -> bool:
        """Whether the whole text is of the grammar."""
        return len(text) in Reading(text, self._rules).ends(self._root, 0)

    def _height(self, node: Node) -> int:
        match node:
            case Rule(name):
                return self._heights[name]
            case Sequence(parts):
                return max(map(self._height, parts), default=0)
            case Choice(parts):
                return min(map(self._height, parts), default=FAR)
            case Many(part, low, _):
                return self._height(part) if low else 0
        return 0

    def _text(self, node: Node, chance: random.Random, depth: int) -> str:
        match node:
            case Text(text):
                return text
            case Chars(ranges):
                return chr(chance.randint(*chance.choice(ranges)))
            case Rule(name):
                return self._text(self._rules[name], chance, depth - 1)
            case Sequence(parts):
                return "".join(self._text(part, chance, depth) for part in parts)
            case Choice(parts):
                least = min(map(self._height, parts))
                free = [part for part in parts if depth > 0 or self._height(part) == least]
                return self._text(chance.choice(free), chance, depth)
            case Many(part, low, high):
                most = low + MORE if high is None else min(high, low + MORE)
                if chance.random() < 0.1 and high is not None:
                    low = most = min(high, 300)
                times = low if depth <= 0 else chance.randint(low, most)
                return "".join(self._text(part, chance, depth) for _ in range(times))
        raise TypeError(node)


class Reading:
    """Where the parts of one text may end. Grammars without left recursion."""

    def __init__(self, text: str, rules: dict[str, Node]) -> None:
        self._text = text
        self._rules = rules
        self._known: dict[tuple[str, int], frozenset[int]] = {}

    def ends(self, node: Node, at: int) -> frozenset[int]:
        """The ends of `node` that begins at `at`."""
        match node:
            case Text(text):
                return frozenset((at + len(text),) if self._text.startswith(text, at) else ())
            case Chars(ranges):
                code = ord(self._text[at]) if at < len(self._text) else -1
                return frozenset((at + 1,) if any(a <= code <= b for a, b in ranges) else ())
            case Rule(name):
                if (name, at) not in self._known:
                    self._known[name, at] = self.ends(self._rules[name], at)
                return self._known[name, at]
            case Sequence(parts):
                found = frozenset((at,))
                for part in parts:
                    found = frozenset(end for each in found for end in self.ends(part, each))
                return found
            case Choice(parts):
                return frozenset(end for part in parts for end in self.ends(part, at))
            case Many(part, low, high):
                return self._many(part, low, high, at)
        raise TypeError(node)

    def _many(self, part: Node, low: int, high: int | None, at: int) -> frozenset[int]:
        found, reached, times = {at} if not low else set(), {at}, 0
        while reached and (high is None or times < high):
            reached = {end for each in reached for end in self.ends(part, each)}
            times += 1
            if times >= low:
                reached -= found
                found |= reached
        return frozenset(found)
