# SPDX-License-Identifier: Apache-2.0
"""What grammars are made of: texts, characters, and these one after the other, or, many times."""

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass

Ranges = tuple[tuple[int, int], ...]  # of characters, sorted, without overlaps


@dataclass(frozen=True, slots=True)
class Text:
    """These characters."""

    text: str


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of these."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after another."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these; of none of them there is no text."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Many:
    """Repeated; `high` None is without end."""

    part: "Node"
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Rule:
    """What the rule of this name says."""

    name: str


Node = Text | Chars | Sequence | Choice | Many | Rule
EMPTY = Text("")
NEVER = Choice(())


def sequence(*parts: Node) -> Node:
    """Without parts that say nothing; NEVER if one of them is."""
    flat: list[Node] = []
    for part in parts:
        if part == NEVER:
            return NEVER
        inner = part.parts if isinstance(part, Sequence) else (part,)
        for each in inner:
            if isinstance(each, Text) and flat and isinstance(flat[-1], Text):
                flat[-1] = Text(flat[-1].text + each.text)
            elif each != EMPTY:
                flat.append(each)
    return EMPTY if not flat else flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def choice(*parts: Node) -> Node:
    """Without parts that are NEVER, and each once."""
    flat = [
        each
        for part in parts
        for each in (part.parts if isinstance(part, Choice) else (part,))
        if each != NEVER
    ]
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else Choice(unique)


def many(part: Node, low: int = 0, high: int | None = None) -> Node:
    """`low` to `high` times."""
    if high is not None and high < low:
        return NEVER
    if high == 0 or part == EMPTY:
        return EMPTY
    if part == NEVER:
        return NEVER if low else EMPTY
    if low == high == 1:
        return part
    if isinstance(part, Many) and part.high is None and part.low <= 1 and high is None:
        return Many(part.part, min(low, part.low), None)
    return Many(part, low, high)


def optional(part: Node) -> Node:
    """Once or not at all."""
    return many(part, 0, 1)


def rule_names(node: Node) -> Iterator[str]:
    """The rules that it refers to, one as often as it does."""
    match node:
        case Rule(name):
            yield name
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from rule_names(part)
        case Many(part):
            yield from rule_names(part)


def rules_that(
    rules: Mapping[str, Node], holds: Callable[[Node, Set[str]], bool]
) -> frozenset[str]:
    """The rules of which `holds` says so, given those of which it did already.

    It may say so of a rule because of the rules in it, and never takes it back when there are more.
    Each rule is looked at once, and again for each of its own rules that comes to be one.
    """
    users: dict[str, list[str]] = {}
    for name, node in rules.items():
        for each in set(rule_names(node)):
            users.setdefault(each, []).append(name)
    found: set[str] = set()
    todo = list(rules)
    while todo:
        name = todo.pop()
        if name not in found and holds(rules[name], found):
            found.add(name)
            todo += users.get(name, ())
    return frozenset(found)


def replaced(node: Node, made: Callable[[Rule], Node]) -> Node:
    """The same with what `made` says in the place of each rule."""
    match node:
        case Rule():
            return made(node)
        case Sequence(parts):
            return sequence(*(replaced(part, made) for part in parts))
        case Choice(parts):
            return choice(*(replaced(part, made) for part in parts))
        case Many(part, low, high):
            return many(replaced(part, made), low, high)
    return node
