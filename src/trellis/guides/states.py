# SPDX-License-Identifier: Apache-2.0
"""States that refer to one another, written as nodes; as rules where more than one refers to one.

>>> written_out([choice(sequence(Text("a"), Rule("=1")), Text("b")), Rule("=0")], str)[0]
Sequence(parts=(Many(part=Text(text='a'), low=0, high=None), Text(text='b')))
"""

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as ListOf

from trellis.guides.nodes import (
    EMPTY,
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
    rule_names,
    sequence,
)
from trellis.guides.ways import TooManyError, circles

ROUNDS = 8  # of putting states into one another
MOST_NESTED = 40  # states within one another; what is deeper becomes a rule
SMALL = 8  # characters and parts that are rather written twice than made a rule


def written_out(bodies: ListOf[Node], new_name: Callable[[], str]) -> tuple[Node, dict[str, Node]]:
    """The first state's node, and the rules it needs; `Rule("=1")` in a body is state 1.

    None of the rules refers to itself, which libraries follow more slowly than a repetition. Raises
    TooManyError where one would.
    """
    found = dict(enumerate(bodies))
    deep: set[int] = set()
    for _ in range(ROUNDS):
        before, found = found, _joined(found, deep)
        if found == before:
            break
    if circles({str(number): set(map(str, _states(body))) for number, body in found.items()}):
        raise TooManyError
    names = {number: Rule(new_name()) for number in found if number}
    rules = {
        name.name: _replaced(found[number], names.__getitem__) for number, name in names.items()
    }
    return _replaced(found[0], names.__getitem__), rules


def _joined(bodies: dict[int, Node], deep: set[int]) -> dict[int, Node]:
    """Those that are referred to more than once, or too deep, the others put into them."""
    used = Counter(number for body in bodies.values() for number in _states(body))
    small = {n for n, body in bodies.items() if not _states(body) and _size(body) <= SMALL}
    kept = (
        {number for number, times in used.items() if times > 1 and number not in small} | {0} | deep
    )
    made: dict[int, Node] = {}
    todo = sorted(kept)

    def put(number: int, depth: int) -> Node:
        if number in kept:
            return Rule(f"={number}")
        if depth >= MOST_NESTED:
            deep.add(number)
            kept.add(number)
            todo.append(number)
            return Rule(f"={number}")
        return _replaced(bodies[number], lambda each: put(each, depth + 1))

    while todo:
        number = todo.pop()
        node = _replaced(bodies[number], lambda each: put(each, 1))
        made[number] = _without_itself(number, node)
    return made


def _without_itself(number: int, node: Node) -> Node:
    """A state that goes back to itself as a repetition: of s = "a" s | "b", "a"* "b"."""
    itself = Rule(f"={number}")
    ends = isinstance(node, Many) and (node.low, node.high) == (0, 1)
    inner = node.part if isinstance(node, Many) and ends else node
    again: list[Node] = []
    on: list[Node] = []
    for each in inner.parts if isinstance(inner, Choice) else (inner,):
        before = _before(each, itself)
        (on if before is None else again).append(each if before is None else before)
    if any(number in _states(each) for each in (*again, *on)):
        return node
    if not again:
        return node
    rest = choice(*on)
    return sequence(many(choice(*again)), (optional(rest) if on else EMPTY) if ends else rest)


def _before(node: Node, last: Node) -> Node | None:
    """What is before `last`, where it ends with that whichever way it goes."""
    if node == last:
        return EMPTY
    if isinstance(node, Sequence):
        before = _before(node.parts[-1], last)
        return None if before is None else sequence(*node.parts[:-1], before)
    if isinstance(node, Choice):
        parts = [_before(part, last) for part in node.parts]
        known = [part for part in parts if part is not None]
        return choice(*known) if known and len(known) == len(parts) else None
    return None


def _replaced(node: Node, state: Callable[[int], Node]) -> Node:
    """A node with what `state` says for each state."""
    return replaced(node, lambda rule: rule if (at := _state(rule.name)) is None else state(at))


def _states(node: Node) -> list[int]:
    """The states that it refers to, one as often as it does."""
    return [at for name in rule_names(node) if (at := _state(name)) is not None]


def _state(name: str) -> int | None:
    return int(name[1:]) if name.startswith("=") else None


def _size(node: Node) -> int:
    match node:
        case Text(text):
            return len(text)
        case Rule(name) if name.startswith("("):  # what is nested in a way
            return SMALL + 1
        case Sequence(parts) | Choice(parts):
            return sum(map(_size, parts))
        case Many(part):
            return 1 + _size(part)
    return 1
