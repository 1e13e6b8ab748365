# SPDX-License-Identifier: Apache-2.0
"""Stop words and bad words: from a request to the arrays that an engine takes.

>>> parse_words(["</s>", "User:"])            # a list
['</s>', 'User:']
>>> parse_words(["</s>,User:"])               # one string of values, as TensorRT-LLM 0.5.0 took it
['</s>', 'User:']
>>> parse_words([""])                         # none
[]
>>> to_word_list([[2], [11338, 25]])
array([[    2, 11338,    25],
       [    1,     3,    -1]], dtype=int32)
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trellis.tokenizers.errors import TokenizerError


def parse_words(raw: Iterable[Any]) -> list[str]:
    """The words of one request, from its list or array of bytes or str, of any shape.

    Several strings are the words as they are. ONE string is read as comma-separated values if it
    holds at least two of them, or is quoted as they are; otherwise it is one word, commas and all:

        ["a,b"]   -> a | b          [","]          -> ,
        [" a, b"] -> " a" | " b"    ["Hello,"]     -> Hello,
        ['"a,b"'] -> a,b            ["a,b", ""]    -> a,b

    Empty strings are no words; blanks are part of a word. Raises TokenizerError for bytes that are
    no UTF-8 and for anything but text.
    """
    words = [_text(item) for item in np.asarray(raw, dtype=object).ravel()]
    if len(words) == 1 and "," in words[0]:
        values = [value for value in _split(words[0]) if value]
        quoted = words[0].startswith('"') and len(values) == 1
        if len(values) > 1 or quoted:
            words = values
    return [word for word in words if word]


def to_word_list(sequences: Iterable[Sequence[int]]) -> NDArray[np.int32]:
    """Id sequences as int32 [2, n]: the ids in a row, and below where each sequence ends.

    The ends are padded with -1. No sequences at all are [[0], [-1]], which engines read as none.
    """
    filled = [list(sequence) for sequence in sequences if len(sequence)]
    flat = [token for sequence in filled for token in sequence]
    result = np.zeros((2, max(1, len(flat))), dtype=np.int32)
    result[0, : len(flat)] = flat
    result[1] = -1
    result[1, : len(filled)] = np.cumsum([len(sequence) for sequence in filled])
    return result


def _text(item: Any) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, (bytes, np.bytes_)):
        try:
            return bytes(item).decode()
        except UnicodeDecodeError as error:
            raise TokenizerError(f"a word is not UTF-8: {bytes(item)!r}: {error.reason}") from error
    raise TokenizerError(f"a word must be text, not {type(item).__name__}: {item!r}")


def _split(line: str) -> list[str]:
    """Comma-separated values, where a value that begins with a quote ends with one.

    a,"b,c",d -> ['a', 'b,c', 'd']; a doubled quote inside stands for one. Unlike Python's csv
    module, a line break is an ordinary character here: "\\n,User:" is two stop words.
    """
    values: list[str] = []
    at = 0
    while at <= len(line):
        value = ""
        if line.startswith('"', at):
            end = _closing_quote(line, at + 1)
            value = line[at + 1 : end].replace('""', '"')
            at = end + 1
        stop = line.find(",", at)
        stop = len(line) if stop < 0 else stop
        values.append(value + line[at:stop])
        at = stop + 1
    return values


def _closing_quote(line: str, at: int) -> int:
    """Where the quote closes that opened before `at`; the end of the line if it never does."""
    while at < len(line):
        if line[at] != '"':
            at += 1
        elif line.startswith('""', at):
            at += 2
        else:
            return at
    return len(line)
