# SPDX-License-Identifier: Apache-2.0
"""JSON strings: bounds of their lengths, expressions, formats.

A string of any length has one place in the grammar; one of at most n characters has n, for each of
which a library tries its whole vocabulary. So the places are rules that all strings share: the
last of them are the same for every bound.
"""

from trellis.guides.characters import STRING_CHARACTER, text_in_string
from trellis.guides.expressions import Expression
from trellis.guides.formats import FORMATS
from trellis.guides.grammar import MOST_UNROLLED, Grammar
from trellis.guides.limits import refused
from trellis.guides.nodes import Node, Text, choice, many, sequence

QUOTE = Text('"')


def constant(text: str) -> Node:
    """This string and no other."""
    return Text(f'"{text_in_string(text)}"')


def character(grammar: Grammar) -> Node:
    """Any character of a string."""
    return grammar.rule("character", lambda: STRING_CHARACTER)


def rest(grammar: Grammar, low: int, high: int | None) -> Node:
    """`low` to `high` characters and the quote behind them."""
    one = character(grammar)
    if high is not None and high < low:
        return choice()
    if max(low, high or 0) > MOST_UNROLLED:
        return grammar.rule(("rest", low, high), lambda: sequence(many(one, low, high), QUOTE))
    if low:
        fewer = None if high is None else high - 1
        step = [sequence(one, rest(grammar, low - 1, fewer))]
    elif high is None:
        return grammar.rule("rest", lambda: sequence(many(one), QUOTE))
    elif high == 0:
        return QUOTE
    else:
        step = [QUOTE, sequence(one, rest(grammar, 0, high - 1))]
    return grammar.rule(("rest", low, high), lambda: choice(*step))


def string(
    grammar: Grammar,
    lengths: tuple[int, int | None],
    patterns: tuple[str, ...],
    format: str,
    place: str,
) -> Node:
    """A string in quotes. Raises RequestError for what cannot be put together."""
    if len(patterns) > 1:
        raise refused(f"{place}.pattern", "not beside another one; write one of both")
    if format and (patterns or lengths != (0, None)):
        raise refused(f"{place}.format", "not beside pattern, minLength or maxLength")
    if format:
        if format not in FORMATS:
            raise refused(f"{place}.format", f"{format[:40]!r}: known are {', '.join(FORMATS)}")
        pattern = FORMATS[format]
        return sequence(QUOTE, Expression(pattern, place).in_string(character(grammar)), QUOTE)
    if not patterns:
        return sequence(QUOTE, rest(grammar, *lengths))
    expression = Expression(patterns[0], f"{place}.pattern")
    if not _within(expression.width, lengths) and not expression.clamp(*lengths):
        raise refused(
            f"{place}.pattern",
            "its matches have other lengths than minLength and maxLength; bound them in the"
            " expression, between ^ and $",
        )
    return sequence(QUOTE, expression.in_string(character(grammar)), QUOTE)


def _within(width: tuple[int, int | None], lengths: tuple[int, int | None]) -> bool:
    low, high = width
    if low < lengths[0]:
        return False
    return lengths[1] is None or (high is not None and high <= lengths[1])
