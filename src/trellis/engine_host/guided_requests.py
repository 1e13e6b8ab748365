# SPDX-License-Identifier: Apache-2.0
"""What a model's tokens allow beside a guide and in it.

Nothing but the guide's end may end an answer in its middle, and a guide needs tokens for its texts:
where none is possible any more, a library lets everything pass.
"""

from collections.abc import Collection, Iterable
from functools import lru_cache

from trellis.engine_host.engines.engine import Sampling
from trellis.guides.letters import Letters, rare_letters
from trellis.guides.limits import refused_by
from trellis.guides.tags import check_special
from trellis.guides.translate import Guide
from trellis.pipeline.guided_decoding import early_end, early_words
from trellis.tokenizers import Tokenizer

LETTER_BYTES = 4  # of UTF-8, at most
FREE_TEXT = "structural_tag"  # may have text in which a stop word means what it always does


def check_guided(sampling: Sampling, tokenizer: Tokenizer) -> None:
    """Raise RequestError for what this model's tokens do not allow beside a guide, or in it."""
    check_ends(sampling, tokenizer.end_ids)
    if sampling.guide_type == FREE_TEXT:
        texts = tokenizer.special_tokens.values()
        check_special(sampling.guide, (text.decode("utf-8", "replace") for text in texts))
    check_letters(rare_letters(Guide(sampling.guide_type, sampling.guide)), tokenizer)


def check_letters(rare: Iterable[Letters], tokenizer: Tokenizer) -> None:
    """Raise RequestError for letters of which no tokens of this model write one.

    Vocabularies of bytes may lack some: SmolLM2's has no U+0004, and nothing of U+40000 to U+BFFFF.
    """
    for letters in rare:
        if not any(_is_possible(letter, tokenizer) for letter in letters):
            names = f"U+{ord(letters[0]):04X}" + (" and its like" if letters[1:] else "")
            raise refused_by(f"this model has no tokens for {names}, which is in it; leave it out")


def _is_possible(letter: str, tokenizer: Tokenizer) -> bool:
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
def _pieces(tokenizer: Tokenizer) -> frozenset[bytes]:
    """What tokens of a few bytes write."""
    every = map(tokenizer.token_bytes, range(tokenizer.text_vocab_size or tokenizer.vocab_size))
    return frozenset(piece for piece in every if len(piece) <= LETTER_BYTES)


def check_ends(sampling: Sampling, known: Collection[int]) -> None:
    """Raise RequestError for an id that could end the answer where the guide does not.

    `known`: the ids that end this model's answers, which are in no guide.
    """
    for token in sampling.end_ids:
        if token not in known:
            name = "end_id" if token == sampling.end_id else "stop_token_ids"
            raise early_end(name, token, known)


def check_stop_words(sampling: Sampling, words: Collection[str]) -> None:
    """Raise RequestError for words that could end the answer where the guide does not."""
    if words and sampling.guide_type and sampling.guide_type != FREE_TEXT:
        raise early_words()
