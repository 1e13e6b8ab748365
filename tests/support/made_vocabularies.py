# SPDX-License-Identifier: Apache-2.0
"""Small byte-level vocabularies with made-up merges and added tokens, in many forms."""

import random
from dataclasses import dataclass
from itertools import pairwise

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from support import tokenizer_corpus
from trellis.panics import Panicked, guarded
from trellis.tokenizers.decoding import BYTE_LETTERS
from trellis.tokenizers.encoder import Encoder

LETTERS = sorted(BYTE_LETTERS, key=BYTE_LETTERS.__getitem__)
"""GPT-2's letter for each byte."""
PATTERNS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\w+|[^\w\s]|\s+",  # nobody's
)
ADDED = (
    *("<s>", "<|im|>", "<|im_end|>", "the", "a", "  ", "\n\n", "É", "[X]", "Hello", "</s>", "<"),
    *("e\u0301", "é", "ﬁ", "\t", "123", "ing", "한", "_x_", "x"),
)
_WORDS = " ".join(tokenizer_corpus.lines()[500:1500]).encode()


@dataclass(frozen=True)
class Made:
    """A vocabulary."""

    backend: tokenizers.Tokenizer
    added: tuple[str, ...]
    """Contents of its added tokens."""


def make(seed: int) -> Made:
    """The vocabulary of that number."""
    rng = random.Random(seed)
    vocab, merges = _merged(rng)
    chosen = rng.sample(ADDED, rng.choice((0, 1, 3, 6)))
    if rng.random() < 0.4:  # as in GPT-2's own files
        for content in chosen:
            vocab.setdefault(content, len(vocab))
    model = models.BPE(vocab=vocab, merges=merges, ignore_merges=rng.random() < 0.4)
    backend = tokenizers.Tokenizer(model)
    if rng.random() < 0.3:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = _pre_tokenizer(rng)
    backend.decoder = decoders.ByteLevel()
    flags = ("lstrip", "rstrip", "single_word", "normalized")
    often = rng.choice((0, 0, 0.25))
    backend.add_tokens(
        [
            AddedToken(
                content,
                special=rng.random() < 0.5,
                **{flag: rng.random() < often for flag in flags},
            )
            for content in chosen
        ]
    )
    return Made(backend, tuple(chosen))


def ids_or_panic(encoder: Encoder, text: str) -> list[list[int]] | str:
    """A text's ids, or the panic's message: `tokenizers` has one for some of these vocabularies.

    An added token of white space that takes the white space after it along may end after the text.
    """
    try:
        return guarded(encoder.encode_batch, [text])
    except Panicked as error:
        return str(error)


def _merged(rng: random.Random) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Tokens with their ids, and merges: of running text, or made up."""
    tokens = rng.sample(LETTERS, 256)
    merges: dict[tuple[str, str], None] = {}
    start = rng.randrange(len(_WORDS) - 600)
    text = [LETTERS[byte] for byte in _WORDS[start : start + 600]]
    for _ in range(rng.choice((0, 5, 50, 300))):
        natural = len(text) > 5 and rng.random() < 0.7
        pair = rng.choice(list(pairwise(text))) if natural else tuple(rng.choices(tokens, k=2))
        left, right = pair
        if len(left + right) > 24:
            continue
        merges[left, right] = None
        tokens.append(left + right)
        text = _joined(text, left, right)
    tokens += ["".join(rng.choices(tokens, k=2)) for _ in range(rng.choice((0, 0, 3)))]
    kept = list(merges)
    if rng.random() < 0.2:
        rng.shuffle(kept)
    gone = set(rng.sample(LETTERS, rng.choice((0, 0, 1, 5))))  # no vocabulary needs all bytes
    named = (token for token in dict.fromkeys(tokens) if not gone & set(token))
    return (
        {token: number for number, token in enumerate(named)},
        [pair for pair in kept if not gone & set("".join(pair))],
    )


def _joined(text: list[str], left: str, right: str) -> list[str]:
    joined: list[str] = []
    for token in text:
        if token == right and joined and joined[-1] == left:
            joined[-1] += token
        else:
            joined.append(token)
    return joined


def _pre_tokenizer(rng: random.Random) -> pre_tokenizers.PreTokenizer:
    kind = rng.random()
    if kind < 0.2:
        return pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.1)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind < 0.35)
    if kind < 0.35:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(rng.random() < 0.5), byte_level])
    behavior, inverted = rng.choice(
        [("isolated", False)] * 4 + [("removed", True), ("removed", False)]
    )
    cut = pre_tokenizers.Split(Regex(rng.choice(PATTERNS)), behavior, inverted)
    return pre_tokenizers.Sequence([cut, byte_level])
