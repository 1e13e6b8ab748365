# SPDX-License-Identifier: Apache-2.0
"""What may end an answer that a guide holds: the guide's end, and nothing in the middle of it."""

from collections.abc import Collection

from trellis.engine_host.engines.engine import Sampling
from trellis.guides.tags import check_special
from trellis.pipeline.guided_decoding import early_end, early_words
from trellis.tokenizers import Tokenizer

FREE_TEXT = "structural_tag"  # may have text in which a stop word means what it always does


def check_guided(sampling: Sampling, tokenizer: Tokenizer) -> None:
    """Raise RequestError for what this model's tokens do not allow beside a guide, or in it."""
    check_ends(sampling, tokenizer.end_ids)
    if sampling.guide_type == FREE_TEXT:
        texts = tokenizer.special_tokens.values()
        check_special(sampling.guide, (text.decode("utf-8", "replace") for text in texts))


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
