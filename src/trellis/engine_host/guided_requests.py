# SPDX-License-Identifier: Apache-2.0
"""What a model's tokens allow beside a guide and in it.

Nothing but the guide's end may end an answer in its middle, and a guide needs tokens for its texts.
"""

from collections.abc import Collection

from trellis.engine_host.engines.engine import Sampling
from trellis.guides.letters import rare_letters
from trellis.guides.tags import check_special
from trellis.guides.translate import Guide
from trellis.pipeline.guide_letters import check_letters
from trellis.pipeline.guided_decoding import FREE_TEXT, early_end, early_words
from trellis.tokenizers import Tokenizer


def check_guided(sampling: Sampling, tokenizer: Tokenizer) -> None:
    """Raise RequestError for what this model's tokens do not allow beside a guide, or in it."""
    check_ends(sampling, tokenizer.end_ids)
    if sampling.guide_type == FREE_TEXT:
        texts = tokenizer.special_tokens.values()
        check_special(sampling.guide, (text.decode("utf-8", "replace") for text in texts))
    check_letters(rare_letters(Guide(sampling.guide_type, sampling.guide)), tokenizer)


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
