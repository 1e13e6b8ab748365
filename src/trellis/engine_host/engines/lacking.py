# SPDX-License-Identifier: Apache-2.0
"""Inputs that some engines have and others lack, rejected by the client's name."""

from collections.abc import Collection

from trellis.contract.client_inputs import BIAS_WORDS, GUIDE_TYPE, LORA_NAME
from trellis.contract.sampling_fields import cannot
from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.engines.words_grammar import check_words
from trellis.errors import RequestError

WORDS_BACKEND = "xgrammar"  # which alone reads our grammars of bad words
SHOWN = 64  # characters of a name
PROMPT_LOG_PROBS, PRIORITY = "prompt_log_probs", "priority"
NGRAMS = "no_repeat_ngram_size"
# The client's name -> the field of Sampling that says whether it was asked.
FIELDS = {
    "bad_words": "bad_words",
    GUIDE_TYPE: "guide_type",
    BIAS_WORDS: "bias_ids",
    LORA_NAME: "lora_name",
    PROMPT_LOG_PROBS: "prompt_log_probs",
    PRIORITY: "priority",
    NGRAMS: NGRAMS,
}


def refuse_lacking(sampling: Sampling, engine: str, *clients: str) -> None:
    """Raise RequestError for one of `clients` that was asked: `engine` does not have it."""
    for client in clients:
        if getattr(sampling, FIELDS[client]):
            raise cannot(client, engine)


def refuse_log_probs(sampling: Sampling, engine: str) -> None:
    """Raise RequestError for log probabilities that a library tells of chosen tokens alone.

    Without sampling the chosen token is the likeliest, so that one is known.
    """
    most = 0 if sampling.sample else 1
    if sampling.top_log_probs > most:
        raise RequestError(
            f"top_log_probs: this engine ({engine}) tells the likeliest token alone, and not where"
            f" tokens are drawn; send {most}"
        )
    if sampling.prompt_log_probs and sampling.top_log_probs:
        raise RequestError(
            f"top_log_probs: this engine ({engine}) does not tell the likeliest tokens of a"
            " prompt; send 0 beside prompt_log_probs"
        )


def refuse_guide(sampling: Sampling, engine: str, no_guides: str) -> None:
    """Raise RequestError for a guide that a library cannot follow.

    `no_guides`: why it has no tokenizer to follow any; '': it has one.
    """
    if sampling.guide_type and no_guides:
        raise RequestError(
            f"{GUIDE_TYPE}: this engine ({engine}) follows none here, since it cannot use the"
            f" tokenizer: {no_guides}; leave it out"
        )
    if sampling.guide_type and sampling.min_tokens > 1:
        raise RequestError(
            f"min_tokens: an answer that follows a guide ends where the guide does; leave out"
            f" min_tokens or {GUIDE_TYPE}"
        )


def refuse_adapter(sampling: Sampling, engine: str, known: Collection[str]) -> None:
    """Raise RequestError for a LoRA adapter that is none of the `known` ones."""
    if not sampling.lora_name or sampling.lora_name in known:
        return
    there = (
        f"known: {', '.join(known)}"
        if known
        else ("there are none; make the repository with SET=lora_adapters:name=folder")
    )
    shown = sampling.lora_name[:SHOWN]
    raise RequestError(f"{LORA_NAME}: this engine ({engine}) has no adapter {shown!r}; {there}")


def refuse_bad_words(sampling: Sampling, engine: str, no_guides: str, backend: str) -> None:
    """Raise RequestError for bad words that a library cannot keep out by a guide of ours.

    `no_guides`: as above. `backend`: what follows guides in the library.
    """
    if not sampling.bad_words:
        return
    if no_guides:
        raise RequestError(
            f"bad_words: this engine ({engine}) keeps none out here, since it cannot use the"
            f" tokenizer: {no_guides}; leave it out"
        )
    if backend != WORDS_BACKEND:
        raise RequestError(
            f"bad_words: this engine ({engine}) keeps them out with {WORDS_BACKEND}, and was loaded"
            f" with {backend}; leave it out"
        )
    if sampling.guide_type:
        raise RequestError(f"bad_words: not beside {GUIDE_TYPE}; leave out one of them")
    check_words(sampling.bad_words, engine)
