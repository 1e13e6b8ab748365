# SPDX-License-Identifier: Apache-2.0
"""Token ids to text, piece by piece, without a wrong byte and without taking one back.

The text of a sequence is its tokens' bytes, joined and decoded as UTF-8. Bytes that cannot be
UTF-8 become U+FFFD; bytes that may still become a character wait for the next token, and are
dropped if none comes:

    tokens  [e2 82] [ac 20] [f0 9f]
    push 1  ''              (waits)
    push 2  '€ '
    push 3  ''              (waits)
    end     ''              (dropped)
"""

import codecs
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum

_decode = codecs.utf_8_decode  # (bytes, errors) -> (text, bytes used): waits for incomplete ones


def _one_for_each_byte(error: UnicodeError) -> tuple[str, int]:
    """An error handler: U+FFFD for every invalid byte, as sentencepiece does.

    b'a\\xe2\\x82b' -> 'a\ufffd\ufffdb', where Python's 'replace' gives 'a\ufffdb'.
    """
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


REPLACE_RUN = "replace"
"""U+FFFD once for each longest invalid run (`from_utf8_lossy`): byte-level BPE."""

REPLACE_BYTE = "trellis.replace_byte"
"""U+FFFD once for each invalid byte: SentencePiece with byte fallback."""

codecs.register_error(REPLACE_BYTE, _one_for_each_byte)


class Leading(Enum):
    """Which spaces at the very start of a text are the tokenizer's own, and not shown."""

    KEPT = "none"
    ONE = "one"  # as sentencepiece, and Strip in a tokenizer.json
    FIRST_TOKEN = "those of the first token"  # as Metaspace in a tokenizer.json
    ALL = "all"  # as sentencepiece where it removes extra white space


class TextTable(dict[int, "str | bytes"]):
    """Token id -> its text, or its bytes where they are no whole characters; filled when asked.

    Ids that the tokenizer does not have (engines pad their vocabularies) have the text ''.
    """

    __slots__ = ("bytes_of", "size")

    def __init__(self, bytes_of: Callable[[int], bytes], size: int) -> None:
        super().__init__()
        self.bytes_of = bytes_of
        self.size = size

    def __missing__(self, token: int) -> "str | bytes":
        if not 0 <= token < self.size:
            return ""
        token = int(token)
        piece: str | bytes = self.bytes_of(token)
        with suppress(UnicodeDecodeError):
            piece = piece.decode()  # type: ignore[union-attr]
        self[token] = piece
        return piece


class StreamDecoder:
    """The text of one growing sequence. Made by `Tokenizer.stream_decoder`.

    >>> decoder = tokenizer.stream_decoder()
    >>> decoder.push([22557]), decoder.push([1526, 28808]), decoder.end()
    ('Hello', ' world!', '')

    The state is at most three waiting bytes and one flag; a token costs the same wherever it
    stands in the sequence.
    """

    __slots__ = ("_careful", "_errors", "_first", "_leading", "_piece", "_waiting")

    def __init__(self, table: TextTable, errors: str, leading: Leading = Leading.KEPT) -> None:
        self._piece = table.__getitem__
        self._errors = errors
        self._leading = leading
        self._first = leading is not Leading.KEPT  # nothing has been said yet
        self._careful = self._first
        self._waiting = b""

    def prime(self, ids: Iterable[int]) -> None:
        """Start after a prompt: its text is not given out, but the sequence goes on from it.

        What follows is `decode(prompt + answer)` without `decode(prompt)`: the next push keeps a
        space that joins it to the prompt, and completes a character of which the prompt holds the
        first bytes.
        """
        self.push(ids)

    def push(self, ids: Iterable[int]) -> str:
        """The text that these ids add: whole characters only, possibly ''."""
        if type(ids) is not list:
            ids = list(ids)
        if len(ids) == 1:  # what a stream does nearly always
            piece = self._piece(ids[0])
            if self._careful or type(piece) is bytes:
                return self._push_bytes(piece if type(piece) is bytes else piece.encode())  # type: ignore[union-attr]
            return piece  # type: ignore[return-value]
        if not self._careful:
            try:
                return "".join(map(self._piece, ids))  # type: ignore[arg-type]
            except TypeError:  # a token that is no whole characters
                pass
        pieces = [p if type(p) is bytes else p.encode() for p in map(self._piece, ids)]  # type: ignore[union-attr]
        if self._first and self._leading is Leading.FIRST_TOKEN:
            self._strip_first_token(pieces)
        return self._push_bytes(b"".join(pieces))

    def end(self) -> str:
        """The sequence is over: incomplete bytes are dropped. Returns '' (`push(ids) + end()`)."""
        self._waiting = b""
        self._careful = self._first
        return ""

    def _push_bytes(self, data: bytes) -> str:
        if self._first:
            return self._push_first(data)
        if self._waiting:
            data = self._waiting + data
        text, used = _decode(data, self._errors)
        if used == len(data):
            self._careful = False
            self._waiting = b""
        else:
            self._careful = True
            self._waiting = data[used:]
        return text

    def _push_first(self, data: bytes) -> str:
        """The first bytes of a text, without the spaces that are the tokenizer's own."""
        if data and self._leading is Leading.FIRST_TOKEN:  # one token: special ones have no bytes
            self._first = False
            return self._push_bytes(data.lstrip(b" "))
        data = self._waiting + data
        text, used = _decode(data, self._errors)
        self._waiting = data[used:]
        if text:
            text = self._strip(text)
        self._careful = self._first or bool(self._waiting)
        return text

    def _strip_first_token(self, parts: list[bytes]) -> None:
        for index, part in enumerate(parts):
            if part:  # special tokens that are left out have no bytes
                parts[index] = part.lstrip(b" ")
                self._first = False
                return

    def _strip(self, text: str) -> str:
        """A text without the spaces at its start that are the tokenizer's own."""
        if self._leading is Leading.ALL:
            text = text.lstrip(" ")
            self._first = not text
            return text
        self._first = False
        return text.removeprefix(" ")
