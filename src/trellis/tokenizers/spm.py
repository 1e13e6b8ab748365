# SPDX-License-Identifier: Apache-2.0
"""Reading a SentencePiece model file, and the `tokenizers` equivalent of one.

A model is a protobuf message: pieces (field 1: text, score, type), the trainer's settings (2)
and the normalizer's (3). Reading the few fields needed takes no protobuf library:

    0a 0b | 0a 04 e2 96 81 74 | 15 00 00 80 bf   ->   Piece('▁t', score=-1.0, kind=NORMAL)
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.files import guess, read_bytes
from trellis.tokenizers.stream import Leading

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
UNIGRAM, BPE = 1, 2


@dataclass
class Model:
    """What a SentencePiece model says."""

    pieces: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    """NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED or BYTE, for each piece."""
    algorithm: int = UNIGRAM
    byte_fallback: bool = False
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    charsmap: bytes = b""
    """The normalizer's compiled map, b'' for none."""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True

    @property
    def unk_piece(self) -> str | None:
        """What stands for letters that have no piece, None if nothing does."""
        return self.roles.get("unk_token")

    @property
    def roles(self) -> dict[str, str]:
        """Which piece plays which part: {"bos_token": "<s>", ...}."""
        ids = {
            "bos_token": self.bos_id,
            "eos_token": self.eos_id,
            "pad_token": self.pad_id,
            "unk_token": self.unk_id,
        }
        return {role: self.pieces[id_] for role, id_ in ids.items() if 0 <= id_ < len(self.pieces)}

    @property
    def leading(self) -> Leading:
        """Which spaces at the start of a text sentencepiece leaves out when it decodes."""
        if self.remove_extra_whitespaces:
            return Leading.ALL
        return Leading.ONE if self.add_dummy_prefix else Leading.KEPT

    @property
    def needs_library(self) -> bool:
        """Whether only the sentencepiece library itself encodes as this model says.

        That is with a normalizer, with white space removed, and with pieces of the user's own,
        which it finds after normalizing.
        """
        return bool(self.charsmap or self.remove_extra_whitespaces or USER_DEFINED in self.kinds)


def read_model(path: Path) -> Model:
    """Read a model file. Raises TokenizerError that names the file and what is wrong."""
    data = read_bytes(path)
    model = Model()
    refused = ""
    try:
        for number, value in _fields(data):
            if number == 1:
                _read_piece(model, value)
            elif number == 2:
                refused = refused or _read_trainer(model, dict(_fields(value)))
            elif number == 3:
                refused = refused or _read_normalizer(model, dict(_fields(value)))
            elif number == 5 and dict(_fields(value)).get(2):
                refused = refused or "denormalizer_spec"
    except (IndexError, ValueError, TypeError, struct.error) as error:
        raise TokenizerError(f"{path}: not a SentencePiece model: {error}{guess(data)}") from error
    if not model.pieces:
        raise TokenizerError(f"{path}: not a SentencePiece model: it has no pieces{guess(data)}")
    if refused:
        raise TokenizerError(
            f"{path}: was trained with {refused}, which changes what a token adds to a text by"
            " what comes after it; no tokenizer_type can stream that"
        )
    return model


def read_algorithm(path: Path) -> int:
    """BPE or UNIGRAM, without reading the pieces. Raises TokenizerError as `read_model` does."""
    data = read_bytes(path)
    try:
        trainer = next((value for number, value in _fields(data) if number == 2), b"")
        return int(dict(_fields(trainer)).get(3, UNIGRAM))
    except (IndexError, ValueError, TypeError) as error:
        raise TokenizerError(f"{path}: not a SentencePiece model: {error}{guess(data)}") from error


def _read_piece(model: Model, message: bytes) -> None:
    piece, score, kind = "", 0.0, NORMAL
    for number, value in _fields(message):
        if number == 1:
            piece = value.decode()
        elif number == 2:
            score = struct.unpack("<f", value)[0]
        elif number == 3:
            kind = value
    model.pieces.append(piece)
    model.scores.append(score)
    model.kinds.append(kind)


def _read_trainer(model: Model, fields: dict[int, Any]) -> str:
    """Read the trainer's settings; what cannot be done, or ''."""
    model.algorithm = fields.get(3, model.algorithm)
    model.byte_fallback = bool(fields.get(35, 0))
    model.unk_id, model.bos_id, model.eos_id, model.pad_id = (
        _signed(fields.get(number, default))
        for number, default in ((40, 0), (41, 1), (42, 2), (43, -1))
    )
    return "treat_whitespace_as_suffix: true" if fields.get(24, 0) else ""


def _read_normalizer(model: Model, fields: dict[int, Any]) -> str:
    """Read the normalizer's settings; what cannot be done, or ''."""
    model.charsmap = fields.get(2, b"")
    model.add_dummy_prefix = bool(fields.get(3, 1))
    model.remove_extra_whitespaces = bool(fields.get(4, 1))
    return "" if fields.get(5, 1) else "escape_whitespaces: false"


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protobuf message: numbers as int, everything else as bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value: Any
            value, at = _varint(data, at)
        else:
            size, at = _size(data, at, wire)
            value, at = data[at : at + size], at + size
            if at > end or number == 0:
                raise ValueError(f"broken at byte {at - size} of {end}")
        yield number, value


def _size(data: bytes, at: int, wire: int) -> tuple[int, int]:
    if wire == 2:
        return _varint(data, at)
    if wire in (1, 5):
        return (8, at) if wire == 1 else (4, at)
    raise ValueError(f"broken at byte {at} of {len(data)}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def bpe_backend(model: Model, path: Path, *, legacy: bool = False) -> tokenizers.Tokenizer:
    """The `tokenizers` equivalent of a BPE model: as transformers makes it.

    A text gets one '▁' before it, if the model says so, unless it begins with one; what follows a
    special token gets none. legacy: a '▁' before every text, and after every special token too.
    Raises TokenizerError for a model that is not BPE.
    """
    if model.algorithm != BPE:
        raise TokenizerError(f"{path}: not a BPE model (algorithm {model.algorithm}); try t5")
    vocab = {piece: token for token, piece in enumerate(model.pieces)}
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=_merges(model, vocab),
            unk_token=model.unk_piece,
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
        )
    )
    if legacy and model.add_dummy_prefix:
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        scheme = "first" if model.add_dummy_prefix else "never"
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, False)
    _decode_bytes(backend)
    _add_special(backend, model)
    return backend


def unigram_backend(model: Model, path: Path, extra: list[str]) -> tokenizers.Tokenizer:
    """The `tokenizers` equivalent of a unigram model without a normalizer of its own.

    extra: special tokens that follow the vocabulary. Raises TokenizerError for other models.
    """
    if model.algorithm != UNIGRAM:
        raise TokenizerError(f"{path}: not a unigram model; for Llama-2's BPE use the type llama")
    vocab = list(zip(model.pieces, model.scores, strict=True)) + [(name, 0.0) for name in extra]
    backend = tokenizers.Tokenizer(models.Unigram(vocab, model.unk_id, model.byte_fallback))
    scheme = "first" if model.add_dummy_prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, False)
    _decode_bytes(backend)
    _add_special(backend, model)
    backend.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in extra])
    return backend


def _add_special(backend: tokenizers.Tokenizer, model: Model) -> None:
    tokens = zip(model.pieces, model.kinds, strict=True)
    backend.add_tokens(
        [
            tokenizers.AddedToken(piece, normalized=False, special=kind != USER_DEFINED)
            for piece, kind in tokens
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ]
    )


def _decode_bytes(backend: tokenizers.Tokenizer) -> None:
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )


def _merges(model: Model, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs of pieces that make a piece, the best score first.

    SentencePiece stores no merges: any two neighbours whose sum is a piece may be merged. Runs of
    spaces all have one score; of them the pair with the longest left part goes first, which is
    what SentencePiece's left-to-right search amounts to.
    """
    found = []
    for piece, score in zip(model.pieces, model.scores, strict=True):
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                found.append((-score, -cut, cut - len(piece), left, right))
    found.sort(key=lambda pair: pair[:3])
    return [(left, right) for *_, left, right in found]
