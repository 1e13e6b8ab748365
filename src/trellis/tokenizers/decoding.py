# SPDX-License-Identifier: Apache-2.0
"""What the decoder that a tokenizer.json declares makes of one token.

A stream cannot wait for the whole text, so each token's bytes are looked up in a table:

    Replace, ByteFallback, Fuse, Strip    '▁world' -> b' world'    '<0xE2>' -> b'\\xe2'
    Replace, ByteFallback, Fuse           the same, and a text may begin with a space
    Metaspace                             '▁world' -> b' world', but b'world' as the first token
    ByteLevel                             'Ġworld' -> b' world'    'âĤ' -> b'\\xe2\\x82'

Added tokens go the same way as pieces: where '▁▁▁▁' is an added token, it is four spaces. Three
things differ from the library `tokenizers`, on purpose. Invalid bytes of byte tokens become U+FFFD
one by one and their valid neighbours stay, as in sentencepiece (the library turns a whole run into
U+FFFD, which no stream can know in time). An added token of a byte-level tokenizer whose letters
stand for no valid UTF-8, such as 'naïve', has its own letters (the library gives 'na\\ufffdve').
With Metaspace the first token loses the spaces at its start (the library takes those inside too).
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import Regex, decoders

from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.stream import REPLACE_BYTE, REPLACE_RUN, Leading

Letters = Callable[[str], str]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Decoding:
    """A decoder, token by token."""

    byte_level: bool
    """Pieces are GPT-2's letters for bytes."""
    byte_tokens: bool
    """Pieces such as '<0xE2>' are bytes."""
    steps: tuple[Letters, ...]
    """What is done to a piece's letters first."""
    leading: Leading
    """Which spaces at the start of a text are the tokenizer's own."""

    @property
    def errors(self) -> str:
        """What stands for bytes that are no UTF-8: REPLACE_RUN or REPLACE_BYTE."""
        return REPLACE_RUN if self.byte_level else REPLACE_BYTE

    def piece_bytes(self, piece: str) -> bytes:
        """The bytes of a token that the vocabulary has under these letters."""
        for step in self.steps:
            piece = step(piece)
        if self.byte_level:
            return byte_level_bytes(piece)
        match = _BYTE_TOKEN.fullmatch(piece) if self.byte_tokens else None
        return bytes([int(match[1], 16)]) if match else piece.encode()

    def added_bytes(self, content: str) -> bytes:
        """The bytes of an added token."""
        data = self.piece_bytes(content)
        if self.byte_level:
            try:
                data.decode()
            except UnicodeDecodeError:
                return content.encode()
        return data


def read_decoder(backend: tokenizers.Tokenizer, where: str) -> Decoding:
    """The decoder of a tokenizer. Raises TokenizerError for one that looks at several tokens."""
    steps: list[Letters] = []
    byte_level = byte_tokens = joined = False
    leading = Leading.KEPT
    for state in _steps(backend.decoder):
        kind = state["type"]
        if kind == "Fuse":
            joined = True
        elif kind == "Strip" and joined and _first_space_only(state) and leading is Leading.KEPT:
            leading = Leading.ONE
        elif joined or byte_tokens:
            raise _not_by_token(backend, where)
        elif kind == "ByteFallback":
            byte_tokens = True
        elif kind == "ByteLevel":
            byte_level = joined = True
        elif kind == "Metaspace":
            steps.append(_replacing(state["replacement"], " "))
            leading = Leading.KEPT if _never(state) else Leading.FIRST_TOKEN
        elif kind == "Replace":
            steps.append(_replacement(state))
        else:
            raise _not_by_token(backend, where)
    if not steps and not byte_level:
        raise _not_by_token(backend, where)
    return Decoding(byte_level, byte_tokens, tuple(steps), leading)


def decodes_by_token(backend: tokenizers.Tokenizer) -> bool:
    """Whether `read_decoder` takes the tokenizer's decoder."""
    try:
        read_decoder(backend, "")
    except TokenizerError:
        return False
    return True


def state_of(part: Any) -> dict[str, Any]:
    """The settings of a normalizer, pre-tokenizer or decoder, as in tokenizer.json; {} if none."""
    return {} if part is None else dict(json.loads(part.__getstate__()))


def decoder_kinds(backend: tokenizers.Tokenizer) -> list[str]:
    """The names of the decoder's steps: ['ByteLevel'] or ['Replace', 'ByteFallback', ...]."""
    return [state["type"] for state in _steps(backend.decoder)]


def _steps(decoder: Any) -> Iterator[dict[str, Any]]:
    def flat(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if state.get("type") == "Sequence":
            for each in state["decoders"]:
                yield from flat(each)
        elif state:
            yield state

    return flat(state_of(decoder))


def _first_space_only(state: dict[str, Any]) -> bool:
    return (state["content"], state["start"], state["stop"]) == (" ", 1, 0)


def _never(state: dict[str, Any]) -> bool:
    """Whether a Metaspace puts nothing before a text, as newer and older files say it."""
    if "prepend_scheme" in state:
        return bool(state["prepend_scheme"] == "never")
    return not state.get("add_prefix_space", True)


def _replacement(state: dict[str, Any]) -> Letters:
    pattern, content = state["pattern"], state["content"]
    if "String" in pattern:
        return _replacing(pattern["String"], content)
    library = decoders.Replace(Regex(pattern["Regex"]), content)
    return lambda piece: str(library.decode([piece]))


def _replacing(old: str, new: str) -> Letters:
    return lambda piece: piece.replace(old, new)


def _not_by_token(backend: tokenizers.Tokenizer, where: str) -> TokenizerError:
    kinds = decoder_kinds(backend)
    return TokenizerError(
        f"{where}: its decoder ({', '.join(kinds) or 'none'}) does not say what one token adds to a"
        " text, which streams need"
    )


def byte_level_bytes(piece: str) -> bytes:
    """The bytes that GPT-2 writes as letters: 'Ġa' -> b' a'; other letters stand for themselves."""
    try:
        return bytes([BYTE_LETTERS[letter] for letter in piece])
    except KeyError:
        return piece.encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's letter for each byte: the byte itself if it prints, else U+0100 and on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + index): byte for index, byte in enumerate(others)}


BYTE_LETTERS = _byte_alphabet()
"""GPT-2's letters and the bytes they stand for: {'a': 0x61, 'Ġ': 0x20, ...}."""
