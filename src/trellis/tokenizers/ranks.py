# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE from ranked byte strings: tiktoken's files, Llama 3's and Qwen's, and tekken.

Such a file holds tokens only, by rank; two neighbours whose sum is a token may be merged, the
lowest rank first. `tokenizers` wants the pairs themselves:

    b'a' 0, b'b' 1, b'c' 2, b'ab' 3, b'abc' 4    ->    a b, ab c
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from trellis.tokenizers.decoding import BYTE_LETTERS
from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.files import guess, read_bytes

_LETTERS = str.maketrans({byte: letter for letter, byte in BYTE_LETTERS.items()})


def read_ranks(path: Path) -> list[bytes]:
    """The tokens of a tiktoken file, by rank: lines of base64, a space and the rank.

    Raises TokenizerError that names the file and the line.
    """
    data = read_bytes(path)
    tokens: list[bytes] = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        try:
            encoded, rank = line.split()
            token = base64.b64decode(encoded, validate=True)
            if int(rank) != len(tokens):
                raise ValueError(f"the rank is {int(rank)}, not {len(tokens)}")
        except (ValueError, binascii.Error) as error:
            raise TokenizerError(
                f"{path}: line {number}: not `base64 rank`: {error}{guess(data)}"
            ) from error
        tokens.append(token)
    check_ranks(tokens, path)
    return tokens


def read_so_many(path: Path, count: int, whose: str, others: str) -> list[bytes]:
    """The tokens of a file that must have so many.

    Args:
        whose: what an error calls files of that size: "Llama 3's".
        others: which type other files are of, for the error.
    """
    ranks = read_ranks(path)
    if len(ranks) != count:
        raise TokenizerError(f"{path}: has {len(ranks)} tokens, not {count} as {whose}; {others}")
    return ranks


def count_ranks(path: Path) -> int | None:
    """How many tokens a tiktoken file has, None if a file is no such."""
    lines = read_bytes(path).split(b"\n")
    first = lines[0].split()
    if len(first) != 2 or not first[1].isdigit():
        return None
    return sum(1 for line in lines if line.strip())


LONGEST = 4096  # bytes of a token; merges take its square


def check_ranks(tokens: list[bytes], path: Path) -> None:
    """Raise TokenizerError unless every byte is a token and no token is there twice."""
    known = set(tokens)
    longest = max(map(len, tokens), default=0)
    if longest > LONGEST:
        raise TokenizerError(
            f"{path}: has a token of {longest} bytes; none has more than {LONGEST}"
        )
    if len(known) != len(tokens):
        raise TokenizerError(f"{path}: has the same token twice")
    missing = next((byte for byte in range(256) if bytes([byte]) not in known), None)
    if missing is not None:
        raise TokenizerError(f"{path}: has no token for the byte 0x{missing:02X}")


def ranked_backend(
    tokens: list[bytes],
    pattern: str,
    special: Iterable[str],
    *,
    special_first: bool = False,
    text: Sequence[str] = (),
    nfc: bool = False,
) -> tokenizers.Tokenizer:
    """`tokenizers`' equivalent: ids are ranks, with the special tokens after (or before) them.

    Args:
        pattern: the regular expression that cuts a text into words.
        text: those of `special` that are text all the same, not left out of any.
    """
    special = list(special)
    shift = len(special) if special_first else 0
    texts = [token.decode("latin-1").translate(_LETTERS) for token in tokens]
    vocab = {text: rank + shift for rank, text in enumerate(texts)}
    merges = _merges(vocab, texts)
    if special_first:
        vocab |= {content: token for token, content in enumerate(special)}
    model = models.BPE(vocab=vocab, merges=merges, ignore_merges=True)
    backend = tokenizers.Tokenizer(model)
    if nfc:
        backend.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = pre_tokenizers.Split(_regex(pattern), "isolated", False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(s, normalized=False, special=s not in text) for s in special])
    return backend


def _regex(pattern: str) -> Regex:
    try:
        return Regex(pattern)
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"pattern {pattern[:64]!r}: {error}") from error


def _merges(vocab: dict[str, int], texts: list[str]) -> list[tuple[str, str]]:
    """Every pair of tokens whose sum is a token, by the rank of the sum."""
    merges: list[tuple[str, str]] = []
    for text in texts:
        cuts = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        pairs = [pair for pair in cuts if pair[0] in vocab and pair[1] in vocab]
        if len(pairs) > 1:
            pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += pairs
    return merges
