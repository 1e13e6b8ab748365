# SPDX-License-Identifier: Apache-2.0
"""What may end an answer that a guide holds: the guide's end, and nothing in the middle of it."""

from collections.abc import Collection

from trellis.contract.client_inputs import GUIDE_TYPE
from trellis.engine_host.engines.engine import Sampling
from trellis.errors import RequestError
from trellis.guides.tags import check_special
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
            ends = ", ".join(map(str, sorted(known))) or "none"
            raise RequestError(
                f"{name}: {token} could end the answer in the middle of what {GUIDE_TYPE} holds it"
                f" to; send this model's own ({ends}), or leave it out"
            )


def check_stop_words(sampling: Sampling, words: Collection[str]) -> None:
    """Raise RequestError for words that could end the answer where the guide does not."""
    if words and sampling.guide_type and sampling.guide_type != FREE_TEXT:
        raise RequestError(
            f"stop_words: could end the answer in the middle of what {GUIDE_TYPE} holds it to;"
            " leave out one of them"
        )
