# SPDX-License-Identifier: Apache-2.0
"""Where a JSON value ends in a text that comes in pieces, and where it stops being JSON.

>>> scanner = JsonScanner()
>>> scanner.scan('{"a": [1', 0), scanner.scan('2]} and more', 0), scanner.done
(8, 3, True)

Strict, as RFC 8259 has it: no NaN, no comments, no control characters in strings. Each character
is looked at once, whatever the pieces.
"""

import re
from collections.abc import Callable

MAX_DEPTH = 128  # of arrays and objects; clients that read an answer have limits, too

_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')  # of a string
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_HEX = frozenset("0123456789abcdefABCDEF")
# From what a number has so far and a kind of character to what it has then. A digit that is not
# zero is "1"; where zeros are no different from it, there is a row for each.
_NUMBER = {
    ("-", "0"): "zero",
    ("-", "1"): "whole",
    ("zero", "."): "point",
    ("zero", "e"): "e",
    ("whole", "0"): "whole",
    ("whole", "1"): "whole",
    ("whole", "."): "point",
    ("whole", "e"): "e",
    ("point", "0"): "fraction",
    ("point", "1"): "fraction",
    ("fraction", "0"): "fraction",
    ("fraction", "1"): "fraction",
    ("fraction", "e"): "e",
    ("e", "-"): "sign",
    ("e", "+"): "sign",
    ("e", "0"): "exponent",
    ("e", "1"): "exponent",
    ("sign", "0"): "exponent",
    ("sign", "1"): "exponent",
    ("exponent", "0"): "exponent",
    ("exponent", "1"): "exponent",
}
_KINDS = {"0": "0", "E": "e", "e": "e", ".": ".", "-": "-", "+": "+"} | dict.fromkeys(
    "123456789", "1"
)
_NUMBERS = frozenset({"zero", "whole", "fraction", "exponent"})  # what a number may end with

_State = Callable[[str, int], int]


class JsonScanner:
    """One value, which begins with the first character scanned: no white space before it."""

    def __init__(self) -> None:
        self.done = False  # whether the value is complete; nothing is scanned then
        self.broken = False  # whether the next character can't be of a JSON value
        self._closers: list[str] = []  # of the arrays and objects that are open
        self._state: _State = self._value
        self._is_key = False
        self._number = ""  # what the number has so far, of _NUMBER
        self._left = ""  # of a literal
        self._digits = 0  # of a \uXXXX that are to come

    @property
    def depth(self) -> int:
        """How many arrays and objects are open."""
        return len(self._closers)

    @property
    def is_begun(self) -> bool:
        """Whether anything of the value was scanned."""
        return self.done or self.broken or bool(self._closers) or self._state != self._value

    def scan(self, text: str, at: int) -> int:
        """The position after what of `text` belongs to the value, from position `at` on.

        That is before the end of `text` only where the value is complete (`done`), or malformed
        there (`broken`).
        """
        end = len(text)
        while at < end and not (self.done or self.broken):
            at = self._state(text, at)
        return at

    def end(self) -> bool:
        """Whether the value is complete if no text follows."""
        if self._state == self._in_number and not self._closers:
            self.done = self.done or self._number in _NUMBERS
        return self.done

    def _fail(self, at: int) -> int:
        self.broken = True
        return at

    def _value(self, text: str, at: int) -> int:
        char = text[at]
        if char == '"':
            self._is_key = False
            self._state = self._string
        elif char in "{[":
            if len(self._closers) == MAX_DEPTH:
                return self._fail(at)
            self._closers.append("}" if char == "{" else "]")
            self._state = self._first_key if char == "{" else self._first_item
        elif char in _LITERALS:
            self._left = _LITERALS[char][1:]
            self._state = self._literal
        elif char in "-0123456789":
            kind = _KINDS[char]
            self._number = {"-": "-", "0": "zero", "1": "whole"}[kind]
            self._state = self._in_number
        elif char in " \t\n\r" and self._closers:
            return _skip(_SPACE, text, at)
        else:
            return self._fail(at)
        return at + 1

    def _first_item(self, text: str, at: int) -> int:
        at = _skip(_SPACE, text, at)
        if at < len(text):
            if text[at] == "]":
                return self._close(at)
            self._state = self._value
        return at

    def _first_key(self, text: str, at: int) -> int:
        at = _skip(_SPACE, text, at)
        if at < len(text) and text[at] == "}":
            return self._close(at)
        return self._key(text, at)

    def _key(self, text: str, at: int) -> int:
        at = _skip(_SPACE, text, at)
        if at == len(text):
            return at
        if text[at] != '"':
            return self._fail(at)
        self._is_key = True
        self._state = self._string
        return at + 1

    def _colon(self, text: str, at: int) -> int:
        at = _skip(_SPACE, text, at)
        if at == len(text):
            return at
        if text[at] != ":":
            return self._fail(at)
        self._state = self._value
        return at + 1

    def _after(self, text: str, at: int) -> int:
        """A comma, or the end of the array or object."""
        at = _skip(_SPACE, text, at)
        if at == len(text):
            return at
        if text[at] == self._closers[-1]:
            return self._close(at)
        if text[at] != ",":
            return self._fail(at)
        self._state = self._key if self._closers[-1] == "}" else self._value
        return at + 1

    def _close(self, at: int) -> int:
        self._closers.pop()
        self._end_value()
        return at + 1

    def _end_value(self) -> None:
        self.done = not self._closers
        self._state = self._after

    def _string(self, text: str, at: int) -> int:
        at = _skip(_PLAIN, text, at)
        if at == len(text):
            return at
        if text[at] == "\\":
            self._state = self._escape
        elif text[at] != '"':
            return self._fail(at)
        elif self._is_key:
            self._state = self._colon
        else:
            self._end_value()
        return at + 1

    def _escape(self, text: str, at: int) -> int:
        if text[at] == "u":
            self._digits = 4
            self._state = self._unicode
        elif text[at] in '"\\/bfnrt':
            self._state = self._string
        else:
            return self._fail(at)
        return at + 1

    def _unicode(self, text: str, at: int) -> int:
        if text[at] not in _HEX:
            return self._fail(at)
        self._digits -= 1
        if not self._digits:
            self._state = self._string
        return at + 1

    def _literal(self, text: str, at: int) -> int:
        if text[at] != self._left[0]:
            return self._fail(at)
        self._left = self._left[1:]
        if not self._left:
            self._end_value()
        return at + 1

    def _in_number(self, text: str, at: int) -> int:
        after = _NUMBER.get((self._number, _KINDS.get(text[at], "")))
        if after is not None:
            self._number = after
            return at + 1
        if self._number not in _NUMBERS:
            return self._fail(at)
        self._end_value()
        return at


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
