# SPDX-License-Identifier: Apache-2.0
"""JSON objects and arrays as grammars. After a comma or a colon one space may stand, no more.

Named properties come in the order of the schema, each once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from trellis.guides.characters import PLAIN, both, others, ranges, text_in_string
from trellis.guides.grammar import Grammar
from trellis.guides.nodes import EMPTY, NEVER, Chars, Node, Text, choice, many, optional, sequence
from trellis.guides.strings import QUOTE, constant, rest

SPACE = optional(Text(" "))
COMMA = sequence(Text(","), SPACE)
COLON = sequence(Text(":"), SPACE)


class Property(NamedTuple):
    """A named one."""

    name: str
    value: Node
    required: bool


@dataclass(frozen=True, slots=True)
class Members:
    """What is in an object, from `low` to `high` of them; `free`: a key and value of any others."""

    named: tuple[Property, ...]
    free: Node
    low: int = 0
    high: int | None = None


def array(prefix: list[Node], items: Node, low: int, high: int | None) -> Node:
    """An array of `low` to `high` items, the first ones those of `prefix`."""
    first = len(prefix)
    left = None if high is None else high - first
    if left is None or left >= 0:
        tail = _repeated(items, max(low - first, 0), left, begun=bool(first))
    else:
        prefix, tail = prefix[:high], EMPTY if low <= (high or 0) else NEVER
    made = tail
    for at in reversed(range(len(prefix))):
        one = sequence(COMMA, prefix[at]) if at else prefix[at]
        made = sequence(one, made)
        if at >= low:
            made = choice(made, EMPTY)
    return sequence(Text("["), made, Text("]"))


def _repeated(one: Node, low: int, high: int | None, begun: bool) -> Node:
    """`low` to `high` with commas between, and before the first if something has `begun`."""
    more = sequence(COMMA, one)
    if begun:
        return many(more, low, high)
    if high == 0:
        return EMPTY if not low else NEVER
    made = sequence(one, many(more, max(low - 1, 0), None if high is None else high - 1))
    return made if low else choice(made, EMPTY)


def json_object(grammar: Grammar, key: object, members: Members) -> Node:
    """An object. `key`: of its rules in the grammar, its own."""
    most = max(1, members.low, 0 if members.high is None else members.high + 1)
    begin = _from(grammar, key, members, 0, 0, most)
    return sequence(Text("{"), begin, Text("}"))


def _from(grammar: Grammar, key: object, members: Members, at: int, count: int, most: int) -> Node:
    """What follows from property `at` on, `count` being there (at most `most` are counted)."""
    if members.high is not None and count > members.high:
        return NEVER
    if at == len(members.named):
        low = max(members.low - count, 0)
        high = None if members.high is None else members.high - count
        return _repeated(members.free, low, high, begun=count > 0)

    def make() -> Node:
        one = members.named[at]
        entry = sequence(constant(one.name), COLON, one.value)
        entry = sequence(COMMA, entry) if count else entry
        after = _from(grammar, key, members, at + 1, min(count + 1, most), most)
        made = sequence(entry, after)
        if one.required:
            return made
        return choice(made, _from(grammar, key, members, at + 1, count, most))

    shared = at > 0 and not members.named[at - 1].required  # reached in two ways
    return grammar.rule((key, at, count), make) if shared else make()


def other_name(grammar: Grammar, names: Iterable[str]) -> Node:
    """A string that is none of `names`: a rule for each of their beginnings."""
    written = {text_in_string(name) for name in names}
    if not written:
        return sequence(QUOTE, rest(grammar, 0, None))
    after: dict[str, set[str]] = {"": set()}
    for name in written:
        for at, letter in enumerate(pieces(name)):
            begin = "".join(pieces(name)[:at])
            after.setdefault(begin, set()).add(letter)
            after.setdefault(begin + letter, set())
    place = ("names", frozenset(written))
    anything = rest(grammar, 0, None)

    def made(begin: str) -> Callable[[], Node]:
        return lambda: _unlike(grammar, place, begin, after, begin in written, anything, made)

    return sequence(QUOTE, grammar.rule((place, ""), made("")))


def pieces(written: str) -> list[str]:
    r"""A string's content as its characters and escapes.

    >>> pieces(r"a\\n")
    ['a', '\\\\', 'n']
    """
    found, at = [], 0
    while at < len(written):
        size = 1 if written[at] != "\\" else 6 if written[at + 1] == "u" else 2
        found.append(written[at : at + size])
        at += size
    return found


def _unlike(
    grammar: Grammar,
    place: object,
    begin: str,
    after: dict[str, set[str]],
    is_name: bool,
    anything: Node,
    made: Callable[[str], Callable[[], Node]],
) -> Node:
    """What may follow a beginning of names."""
    letters = after[begin]
    plain = ranges(*((ord(each), ord(each)) for each in letters if len(each) == 1))
    escapes = [each for each in ESCAPED if each not in letters]
    free = choice(Chars(both(others(plain), PLAIN)), *map(Text, escapes))
    return choice(
        NEVER if is_name else QUOTE,
        sequence(free, anything),
        *(
            sequence(Text(each), grammar.rule((place, begin + each), made(begin + each)))
            for each in sorted(letters)
        ),
    )


ESCAPED = tuple("\\" + letter for letter in '"\\bfnrt')
