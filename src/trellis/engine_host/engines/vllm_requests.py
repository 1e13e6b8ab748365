# SPDX-License-Identifier: Apache-2.0
"""One request in vLLM's words: its settings, what comes of it, and what the library rejects."""

from typing import Any

import vllm.exceptions
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from trellis.contract.client_inputs import BIAS_WORDS, GUIDE, PROMPT
from trellis.contract.sampling_fields import FIELDS
from trellis.engine_host.engines.engine import (
    Extras,
    Failure,
    FinishReason,
    Progress,
    Sampling,
    TopLogProbs,
)
from trellis.engine_host.engines.words_grammar import words_grammar
from trellis.errors import RequestError

# What the library raises for a request that is at fault: late releases have a class for it.
CLIENT_ERRORS: tuple[type[Exception], ...] = (
    getattr(vllm.exceptions, "VLLMClientError", ValueError),
    ValueError,
)
# The library's name of what is wrong -> the client's, where they differ.
CLIENT_NAMES = {
    "n": "num_return_sequences",
    "logprobs": "top_log_probs",  # none but the chosen token's is never too many
    "prompt_logprobs": "top_log_probs",
    "logit_bias": BIAS_WORDS,
}
CLIENTS = frozenset({BIAS_WORDS, "top_log_probs", *(field.client for field in FIELDS.values())})
# The type of a guide, as guides/translate.py makes it -> the library's.
GUIDES = {"ebnf_grammar": "grammar", "structural_tag": "structural_tag"}
FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "repetition": "stop",
    "length": "length",
    "abort": "cancelled",
}


def sampling_params(sampling: Sampling, guide_end: int = -1) -> SamplingParams:
    """The library's settings of one request.

    `guide_end`: the id that the library's tokenizer ends a guide with.
    """
    drawn, ends, guided = sampling.sample, sampling.end_ids, bool(sampling.guide_type)
    if guided or (sampling.bad_words and ends):  # after it the library lets everything pass
        ends = tuple(dict.fromkeys((*ends, guide_end)))
    return SamplingParams(
        n=sampling.num_return_sequences,
        max_tokens=sampling.max_tokens,
        min_tokens=sampling.min_tokens if ends and not guided else 0,
        temperature=sampling.temperature if drawn else 0.0,
        top_k=sampling.top_k if drawn else 0,
        top_p=sampling.top_p if drawn and sampling.top_p > 0 else 1.0,
        min_p=sampling.min_p if drawn else 0.0,
        seed=sampling.seed if drawn else None,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        stop_token_ids=list(ends),
        ignore_eos=True,  # the model's own ends count if they were sent
        # Of the chosen token, and of so many likeliest.
        logprobs=sampling.top_log_probs if sampling.log_probs else None,
        prompt_logprobs=sampling.top_log_probs if sampling.prompt_log_probs else None,
        logit_bias=dict(zip(sampling.bias_ids, sampling.bias_weights, strict=True)) or None,
        structured_outputs=_guide(sampling),
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def _guide(sampling: Sampling) -> StructuredOutputsParams | None:
    if sampling.bad_words:
        grammar = words_grammar(sampling.bad_words, ends=bool(sampling.end_ids))
        return StructuredOutputsParams(grammar=grammar)
    if not sampling.guide_type:
        return None
    return StructuredOutputsParams(**{GUIDES[sampling.guide_type]: sampling.guide})


def event(
    key: int, completion: Any, sampling: Sampling, guide_end: int, begun: bool, answer: Any = None
) -> Progress | Failure:
    """What one sequence got; its ids end with the one that ended it, if the client named that.

    `begun`: whether anything came of this request before. `answer`: what the sequence is of.
    """
    ids = list(completion.token_ids)
    if completion.finish_reason == "error":
        if sampling.guide_type and not begun:
            return Failure(key, f"{GUIDE}: vLLM cannot follow it; its reason is in the log", True)
        return Failure(key, "the engine failed this request; send it again")
    finish = FINISH[completion.finish_reason] if completion.finish_reason else None
    if finish == "stop" and ids[-1:] == [guide_end] and guide_end not in sampling.end_ids:
        ids.pop()  # of the guide, not of the text
    log_probs = [
        float(at[token].logprob) for token, at in zip(ids, completion.logprobs or (), strict=False)
    ]
    cum_log_prob = completion.cumulative_logprob or 0.0
    extras = None
    if sampling.extras:
        extras = _extras(answer, completion, sampling, len(ids), begun)
    return Progress(key, completion.index, ids, finish, log_probs, cum_log_prob, extras)


def _extras(
    answer: Any, completion: Any, sampling: Sampling, count: int, begun: bool
) -> Extras | None:
    """What is asked for beside the first `count` ids of a step."""
    most = sampling.top_log_probs
    entries = (completion.logprobs or ())[:count] if most else ()
    tops = [_likeliest(entry, most) for entry in entries]
    if begun:
        return Extras(tops) if tops else None
    prompt: list[tuple[float, TopLogProbs] | None] | None = None
    if sampling.prompt_log_probs:
        pairs = zip(answer.prompt_token_ids, answer.prompt_logprobs, strict=True)
        prompt = [
            entry and (float(entry[token].logprob), _likeliest(entry, most))
            for token, entry in pairs
        ]
    cached = answer.num_cached_tokens if sampling.return_cached_tokens else None
    return Extras(tops, prompt, cached)


def _likeliest(entry: Any, most: int) -> TopLogProbs:
    """Of one token, without the chosen one where that is none of them: the library has it too."""
    ranked = sorted(entry.items(), key=lambda item: item[1].rank)[:most]
    return [(token, float(value.logprob)) for token, value in ranked]


def rejection(error: Exception, sampling: Sampling) -> RequestError:
    """What the library rejects, under the client's name of what is wrong."""
    named = getattr(error, "parameter", None)
    client = CLIENT_NAMES.get(named, named) if isinstance(named, str) else ""
    if client not in CLIENTS:
        client = "bad_words" if sampling.bad_words else GUIDE if sampling.guide_type else PROMPT
    return RequestError(f"{client}: vLLM rejected the request: {error}")
