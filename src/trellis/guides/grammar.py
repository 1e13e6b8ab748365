# SPDX-License-Identifier: Apache-2.0
"""Grammars as values, and their text in EBNF.

>>> from trellis.guides.nodes import many, sequence
>>> grammar = Grammar()
>>> grammar.write(sequence(Text("a"), many(Chars(((48, 57),)), 1, 3)))
'root ::= "a" [0-9]{1,3}\\n'
"""

import re
from collections.abc import Callable, Hashable, Mapping, Set
from dataclasses import dataclass, field

from trellis.errors import RequestError
from trellis.guides.determined import determined
from trellis.guides.limits import GUIDE_ELEMENTS, refused_by
from trellis.guides.nodes import (
    NEVER,
    Chars,
    Choice,
    Many,
    Node,
    Ranges,
    Rule,
    Sequence,
    Text,
    replaced,
    rule_names,
    rules_that,
)
from trellis.guides.ways import Work

WIDE_CHARACTERS = 16  # a class of more has many tokens of a vocabulary tried at its place
WIDE_ELEMENTS = 16  # what such a place counts for
MOST_SHRUNK = 4  # times that a grammar may be too large before choices with one beginning are one
MOST_UNROLLED = 128  # times that the library writes a repetition out
CARET = ord("^")
BLOCK = 0x1000  # characters whose UTF-8 differs in the last two bytes alone


@dataclass(slots=True)
class Grammar:
    """Rules under names, each made once."""

    rules: dict[str, Node] = field(default_factory=dict)
    work: Work = field(default_factory=Work)  # of the guide that it is all or a part of
    _names: dict[Hashable, str] = field(default_factory=dict)

    def rule(self, key: Hashable, make: Callable[[], Node]) -> Node:
        """The rule for `key`, which may need itself while it is made."""
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = f"r{len(self._names)}"
            self.rules[name] = make()
        return Rule(name)

    def write(self, root: Node) -> str:
        """The grammar's text, `root` first.

        Raises RequestError for one of no text at all, and for one that is too large.
        """
        finite = rules_that(self.rules, _ends)
        root = without(root, finite)
        if root == NEVER:
            raise refused_by("no answer can meet it")
        kept = {name: without(node, finite) for name, node in self.rules.items() if name in finite}
        size = _size(root, kept)
        if size > GUIDE_ELEMENTS * MOST_SHRUNK:
            raise _too_large(size)
        for opaque in (self._opaque(), frozenset(kept)):
            first, rules = determined(root, kept, opaque, self.work)
            size = _size(first, rules)
            if size <= GUIDE_ELEMENTS:
                break
        else:
            raise _too_large(size)
        used = _reachable(first, rules)
        lines = [f"root ::= {written(first, top=True)}"]
        lines += [f"{name} ::= {written(rules[name], top=True)}" for name in used]
        return "\n".join([*lines, ""])

    def _opaque(self) -> frozenset[str]:
        """The rules made here, and no client's, that are no plain choices.

        An object with many optional properties would become as large as the square of them, and no
        library loses its place between such rules: OpenVINO's does where it puts rules into others.
        """
        return frozenset(self._names.values()) - rules_that(self.rules, _is_plain)

    def elements(self) -> int:
        """How large all rules are together: what a library makes of them is in proportion."""
        leaves = {
            name: elements(node, {})
            for name, node in self.rules.items()
            if not isinstance(node, Text) and not any(rule_names(node))
        }
        wide = {name: WIDE_ELEMENTS for name, size in leaves.items() if size >= WIDE_ELEMENTS}
        return sum(elements(node, wide) for node in self.rules.values())


def _is_plain(node: Node, plain: Set[str]) -> bool:
    """Whether no rule is in it, but for a choice of plain ones."""
    match node:
        case Rule(name):
            return name in plain
        case Choice(parts):
            return all(_is_plain(part, plain) for part in parts)
    return not any(rule_names(node))


def _ends(node: Node, finite: Set[str]) -> bool:
    """Whether it has a text which ends."""
    match node:
        case Rule(name):
            return name in finite
        case Sequence(parts):
            return all(_ends(part, finite) for part in parts)
        case Choice(parts):
            return any(_ends(part, finite) for part in parts)
        case Many(part, low, _):
            return not low or _ends(part, finite)
    return True


def without(node: Node, finite: Set[str]) -> Node:
    """The same without what never ends."""
    return replaced(node, lambda rule: rule if rule.name in finite else NEVER)


def _size(root: Node, rules: dict[str, Node]) -> int:
    """The elements of a root and of the rules that it needs."""
    used = _reachable(root, rules)
    return Grammar({"": root} | {name: rules[name] for name in used}).elements()


def _too_large(size: int) -> RequestError:
    return refused_by(
        f"{size} elements as a grammar, and guide_elements is {GUIDE_ELEMENTS}; make it smaller,"
        " with fewer or shorter bounds of lengths"
    )


def _reachable(root: Node, rules: dict[str, Node]) -> list[str]:
    found: dict[str, None] = {}
    todo = [root]
    while todo:
        for name in rule_names(todo.pop()):
            if name not in found:
                found[name] = None
                todo.append(rules[name])
    return list(found)


def elements(node: Node, wide: Mapping[str, int]) -> int:
    """How large it is: what a library writes out of it, wide classes counted more.

    `wide`: rules of such classes, and what each counts for.
    """
    match node:
        case Text(text):
            return len(text.encode("utf-8", "surrogatepass"))
        case Chars(ranges):
            size = sum(last - first + 1 for first, last in ranges)
            return WIDE_ELEMENTS if size > WIDE_CHARACTERS else 1
        case Sequence(parts) | Choice(parts):
            return 1 + sum(elements(part, wide) for part in parts)
        case Many(part, low, high):
            times = max(low + 1 if high is None else high, 1)
            return elements(part, wide) * min(times, MOST_UNROLLED)
        case Rule(name):
            return wide.get(name, 1)
    return 1


def written(node: Node, top: bool = False) -> str:
    """A node's text; `top`: where no parentheses are needed around a choice."""
    match node:
        case Text(text):
            return literal(text)
        case Chars(ranges):
            return class_text(ranges)
        case Rule(name):
            return name
        case Sequence(parts):
            return " ".join(written(part) for part in parts)
        case Choice(parts):
            text = " | ".join(written(part, top=isinstance(part, Sequence)) for part in parts)
            return text if top else f"({text})"
        case Many(part, low, high):
            inner = written(part)
            if isinstance(part, (Sequence, Many)) or (isinstance(part, Text) and len(inner) != 3):
                inner = f"({inner})"
            return inner + _times(low, high)
    raise TypeError(node)


def _times(low: int, high: int | None) -> str:
    if (low, high) == (0, 1):
        return "?"
    if high is None and low < 2:
        return "+" if low else "*"
    if low == high:
        return f"{{{low}}}"
    return f"{{{low},{'' if high is None else high}}}"


def split_misread(text: str) -> list[str]:
    r"""A text in pieces, of which libraries read none as another one.

    They write a grammar anew, and read that: OpenVINO's writes U+00E9 as \xe9, and takes all hex
    digits behind an \x for its own.

    >>> split_misread("élan"), split_misread("début 1é1"), split_misread("\nabc")
    (['élan'], ['dé', 'but 1é', '1'], ['\nabc'])
    """
    return _MISREAD.split(text)


# Between one of U+007F to U+00FF, or a control character without a short escape, and a hex digit.
_MISREAD = re.compile(r"(?<=[^ -~\t\n\r\u0100-\U0010ffff])(?=[0-9A-Fa-f])")


def literal(text: str) -> str:
    r"""A text in quotes, or in several that follow one another where one would be misread.

    >>> literal("né à Be"), literal("été, über")
    ('"n\\U000000e9 \\U000000e0 Be"', '"\\U000000e9t\\U000000e9, \\U000000fc" "ber"')
    """
    pieces = ("".join(map(_quoted, piece)) for piece in split_misread(text))
    return '"' + '" "'.join(pieces) + '"'


def _quoted(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if " " <= character <= "~" else f"\\U{ord(character):08x}"


def class_text(ranges: Ranges) -> str:
    r"""A class, ordered so that libraries read it as it is meant.

    They write it anew without the escapes that it has here: no `^` may be first, where it negates,
    and no hex digit behind a control character (see `split_misread`).

    >>> class_text(((9, 9), (94, 94), (97, 99))), class_text(((94, 96),)), class_text(((94, 94),))
    ('[a-c\\U0000005e\\U00000009]', '[\\U0000005f-\\U00000060\\U0000005e]', '"^"')
    """
    caret: list[tuple[int, int]] = []
    control: list[tuple[int, int]] = []
    rest: list[tuple[int, int]] = []
    for first, last in (piece for each in ranges for piece in readable(*each)):
        if first == CARET:
            caret = [(CARET, CARET)]
            rest += [(CARET + 1, last)] if last > CARET else []
        else:
            (control if first < ord(" ") else rest).append((first, last))
    if caret and not (control or rest):
        return literal("^")
    pieces = [*rest, *caret, *control] if rest else [*control, *caret]
    return "[" + "".join(_piece_text(first, last) for first, last in pieces) + "]"


def _piece_text(first: int, last: int) -> str:
    text = character_text(first)
    return text if first == last else f"{text}-{character_text(last)}"


def character_text(character: int) -> str:
    """A character as it stands in a class."""
    if chr(character).isascii() and chr(character).isalnum():
        return chr(character)
    return f"\\U{character:08x}"


def readable(first: int, last: int) -> list[tuple[int, int]]:
    """These characters in ranges that the library reads as they are meant.

    Of one that ends inside a block it leaves out what is in that block, unless it began there, too.
    """
    block = last - last % BLOCK
    if first >= block or last == block + BLOCK - 1 or last < 0x80:
        return [(first, last)]
    return [(first, block - 1), (block, last)]
