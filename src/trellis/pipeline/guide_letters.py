# SPDX-License-Identifier: Apache-2.0
"""Whether a model's tokens can write what a guide asks for.

Where no token is possible any more, a library lets everything pass.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from trellis.guides.letters import Letters
from trellis.guides.limits import refused_by

if TYPE_CHECKING:
    from trellis.tokenizers import Tokenizer

LETTER_BYTES = 4  # of UTF-8, at most


def check_letters(rare: Iterable[Letters], tokenizer: "Tokenizer") -> None:
    """Raise RequestError for letters of which no tokens of this model write one.

    Vocabularies of bytes may lack some: SmolLM2's has no U+0004, and nothing of U+40000 to U+BFFFF.
    """
    for letters in rare:
        if not any(_is_possible(letter, tokenizer) for letter in letters):
            names = f"U+{ord(letters[0]):04X}" + (" and its like" if letters[1:] else "")
            raise refused_by(f"this model has no tokens for {names}, which is in it; leave it out")


def _is_possible(letter: str, tokenizer: "Tokenizer") -> bool:
    # Most are written as they are read; some are read as others.
    return tokenizer.decode(tokenizer.encode_fragment(letter)) == letter or _is_written(
        letter.encode(), _pieces(tokenizer)
    )


def _is_written(data: bytes, pieces: frozenset[bytes]) -> bool:
    """Whether some pieces after one another are these bytes."""
    return not data or any(
        data[:size] in pieces and _is_written(data[size:], pieces)
        for size in range(1, len(data) + 1)
    )


@lru_cache(maxsize=8)
def _pieces(tokenizer: "Tokenizer") -> frozenset[bytes]:
    """What tokens of a few bytes write."""
    every = map(tokenizer.token_bytes, range(tokenizer.text_vocab_size or tokenizer.vocab_size))
    return frozenset(piece for piece in every if len(piece) <= LETTER_BYTES)
