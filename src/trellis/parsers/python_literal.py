# SPDX-License-Identifier: Apache-2.0
"""Reading a Python literal as JSON: {'a': None, 'b': [1.50]} is {"a": null, "b": [1.50]}.

Strict, and nothing is evaluated: strings in one pair of quotes, numbers as JSON has them, lists,
dictionaries with strings for keys, True, False, None, and JSON's names of those three.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from trellis.parsers.json_scan import MAX_DEPTH
from trellis.parsers.reader import NotACallError, Reader, Steps

Sink = Callable[[str], Any]

_WORD = re.compile(r"\w+")
_NAMES = {"True": "true", "False": "false", "None": "null"} | {
    name: name for name in ("true", "false", "null")
}
_PLAIN = {quote: re.compile(rf"[^{quote}\\\n\r\0]+") for quote in "'\""}
_SIMPLE = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v", "a": "\a"} | {
    char: char for char in "\\'\""
}
_CODES = {"x": 2, "u": 4, "U": 8}  # how many hexadecimal digits follow
_HEX = frozenset("0123456789abcdefABCDEF")
_HIGHEST = 0x10FFFF


def read_literal(reader: Reader, sink: Sink, depth: int = 0) -> Steps[None]:
    """Give `sink` the JSON of one literal. Raises NotACallError for anything else."""
    char = yield from reader.peek()
    if char in ("'", '"'):
        sink(to_json((yield from _string(reader))))
    elif char == "[" and depth < MAX_DEPTH:
        yield from _items(reader, sink, "[]", lambda: read_literal(reader, sink, depth + 1))
    elif char == "{" and depth < MAX_DEPTH:
        yield from _items(reader, sink, "{}", lambda: _pair(reader, sink, depth + 1))
    elif char and char in "-0123456789":
        yield from reader.json(sink)
    else:
        word = yield from read_word(reader)
        if word not in _NAMES:
            raise NotACallError
        sink(_NAMES[word])


def read_word(reader: Reader, pattern: re.Pattern[str] = _WORD) -> Steps[str]:
    """The characters that `pattern` matches, which is a repeated class of characters."""
    pieces: list[str] = []
    yield from reader.matching(pattern, pieces.append)
    return "".join(pieces)


def read_separated(reader: Reader, close: str, item: Callable[[], Steps[None]]) -> Steps[None]:
    """Read items with commas between them, and perhaps behind, up to `close`.

    Raises NotACallError for anything else.
    """
    yield from reader.space()
    while not (yield from reader.follows(close)):
        yield from item()
        yield from reader.space()
        if not (yield from reader.follows(",")):
            yield from reader.expect(close)
            return
        yield from reader.space()


def to_json(text: str) -> str:
    """A string as JSON; halves of surrogate pairs, which are no text, stay escaped."""
    halves = not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)
    return json.dumps(text, ensure_ascii=halves)


def _items(reader: Reader, sink: Sink, pair: str, item: Callable[[], Steps[None]]) -> Steps[None]:
    separators = iter([""])

    def separated() -> Steps[None]:
        sink(next(separators, ", "))
        yield from item()

    yield from reader.expect(pair[0])
    sink(pair[0])
    yield from read_separated(reader, pair[1], separated)
    sink(pair[1])


def _pair(reader: Reader, sink: Sink, depth: int) -> Steps[None]:
    if (yield from reader.peek()) not in ("'", '"'):
        raise NotACallError
    sink(to_json((yield from _string(reader))))
    yield from reader.space()
    yield from reader.expect(":")
    yield from reader.space()
    sink(": ")
    yield from read_literal(reader, sink, depth)


def _string(reader: Reader) -> Steps[str]:
    pieces: list[str] = []
    quote = reader.take(1)
    while True:
        yield from reader.matching(_PLAIN[quote], pieces.append)
        char = yield from reader.peek()
        if char == quote:
            reader.take(1)
            return "".join(pieces)
        yield from reader.expect("\\")
        pieces.append((yield from _escape(reader)))


def _escape(reader: Reader) -> Steps[str]:
    """What follows a backslash, as Python reads it; one that means nothing stays as it is."""
    char = yield from reader.peek()
    if not char or char in "N01234567\n\r\0":  # Unicode's names, octal, a line that goes on
        raise NotACallError
    reader.take(1)
    if char not in _CODES:
        return _SIMPLE.get(char, f"\\{char}")
    digits = ""
    for _ in range(_CODES[char]):
        digit = yield from reader.peek()
        if digit not in _HEX:
            raise NotACallError
        digits += reader.take(1)
    if int(digits, 16) > _HIGHEST:
        raise NotACallError
    return chr(int(digits, 16))
