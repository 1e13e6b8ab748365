# SPDX-License-Identifier: Apache-2.0
"""One request in the words of TensorRT-LLM's LLM API: its settings, and what its guide is."""

from typing import Any

import numpy as np
import tensorrt_llm
from tensorrt_llm import SamplingParams
from tensorrt_llm.llmapi import GuidedDecodingParams

from trellis.contract.client_inputs import GUIDE
from trellis.contract.release import release_order
from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.engines.words_grammar import words_grammar
from trellis.errors import RequestError

# From this candidate on there is one sampler, and that tells the chosen token's log probability.
ONE_SAMPLER = "1.3.0rc26"
# The type of a guide of guides/translate.py -> the library's, and xgrammar's reader of it.
GUIDES = {
    "ebnf_grammar": ("grammar", "from_ebnf"),
    "structural_tag": ("structural_tag", "from_structural_tag"),
}


def one_sampler() -> bool:
    """Whether this release has one sampler, which heeds everything."""
    return release_order(tensorrt_llm.__version__) >= release_order(ONE_SAMPLER)


def sampling_params(sampling: Sampling, vocab_size: int = 0, guide_end: int = -1) -> SamplingParams:
    """The library's settings of one request, an object of its own: the library writes to it.

    `guide_end`: the id that the library's tokenizer ends a guide with.
    What is left out may come from the checkpoint's generation_config.json in late releases, so
    what has a default there is always said.
    """
    ends, guided = sampling.end_ids, bool(sampling.guide_type)
    if guided or (sampling.bad_words and ends):  # after it the library lets everything pass
        ends = tuple(dict.fromkeys((*ends, guide_end)))
    arguments: dict[str, Any] = {
        "end_id": ends[0] if ends else -1,
        "pad_id": ends[0] if ends else 0,
        "max_tokens": sampling.max_tokens,
        "n": sampling.sequences,
        "best_of": sampling.sequences,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "detokenize": False,
        **_choice(sampling),
    }
    if ends and not guided:  # without one the library would hold back the last id of the vocabulary
        arguments["min_tokens"] = sampling.min_tokens
    if ends[1:]:
        arguments["stop_token_ids"] = list(ends[1:])
    if sampling.log_probs:  # of the chosen token, and of so many likeliest
        arguments["logprobs"] = sampling.top_log_probs if one_sampler() else 1
    if sampling.no_repeat_ngram_size:  # 0 is no value of the library's
        arguments["no_repeat_ngram_size"] = sampling.no_repeat_ngram_size
    if sampling.bias_ids:
        arguments["embedding_bias"] = _bias(sampling, vocab_size)
    if guided or sampling.bad_words:
        arguments["guided_decoding"] = _guide(sampling)
    return SamplingParams(**arguments)


def _bias(sampling: Sampling, vocab_size: int) -> Any:
    """A weight for each id, torch's [vocab_size] float32."""
    import torch

    weights = np.zeros(vocab_size, np.float32)
    weights[list(sampling.bias_ids)] = sampling.bias_weights
    return torch.from_numpy(weights)


def _guide(sampling: Sampling) -> GuidedDecodingParams:
    if sampling.bad_words:
        grammar = words_grammar(sampling.bad_words, ends=bool(sampling.end_ids))
        return GuidedDecodingParams(grammar=grammar)
    return GuidedDecodingParams(**{GUIDES[sampling.guide_type][0]: sampling.guide})


def check_grammar(sampling: Sampling) -> None:
    """Raise RequestError for a guide that is none, which not every release survives.

    It may take a while, and needs the library's own package xgrammar; without it nothing is known.
    """
    if sampling.guide_type not in GUIDES:
        return
    try:
        import xgrammar
    except ImportError:
        return
    try:
        getattr(xgrammar.Grammar, GUIDES[sampling.guide_type][1])(sampling.guide)
    except Exception as error:
        raise RequestError(f"{GUIDE}: not a {sampling.guide_type}: {error}") from error


def _choice(sampling: Sampling) -> dict[str, Any]:
    """How a token is chosen."""
    if sampling.beam_width > 1:
        beams = {"use_beam_search": True, "length_penalty": sampling.length_penalty}
        return {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **beams}
    if not sampling.sample:
        return {"temperature": 1.0, "top_k": 1, "top_p": 1.0, "min_p": 0.0}
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p if sampling.top_p > 0 else 1.0,
        "min_p": sampling.min_p,
        "seed": sampling.seed,
    }
