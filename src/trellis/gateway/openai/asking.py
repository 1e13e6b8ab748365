# SPDX-License-Identifier: Apache-2.0
"""From OpenAI's fields to the inputs of an engine, each mapped or rejected by its name."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trellis.contract.client_inputs import (
    EXCLUDE,
    GUIDE,
    GUIDE_TYPE,
    LORA_NAME,
    MAX_TOKENS,
    SKIP,
    STREAM,
)
from trellis.errors import RequestError
from trellis.gateway.engine_requests import Written
from trellis.gateway.ids import new_id
from trellis.gateway.openai.errors import Names, bad, rejected
from trellis.gateway.openai.fields import Sampling
from trellis.gateway.openai.served import Served
from trellis.gateway.openai.structure import Constraint
from trellis.pipeline.stop_strings import StopMatcher

STOP_WORDS = "stop_words"
SEED_BITS = 63  # what every engine's library takes
# Fields that are inputs of the ensemble under the same name.
SAME = (
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "min_tokens",
)
# What only an engine's step socket takes -> the field that asks for it.
STEP_ONLY = {
    "top_log_probs": "top_logprobs",
    "prompt_log_probs": "echo",
    "bias_ids": "logit_bias",
    "bias_weights": "logit_bias",
    "include_stop_words": "include_stop_str_in_output",
    "priority": "priority",
}


@dataclass
class Inputs:
    """What an engine is asked, but for the prompt and the seed of each sequence."""

    values: dict[str, Any]  # by the ensemble's names
    more: dict[str, Any] = field(default_factory=dict)  # of the step socket alone
    seed: int | None = None
    names: Names = field(default_factory=dict)  # as the endpoint's fields are called
    stops: Sequence[str] = ()  # strings that the gateway itself ends the answer at
    include_stop: bool = False  # whether the text ends behind its stop string

    def hold_to(self, served: Served, constraint: Constraint) -> None:
        """Have the answer held to it. Raises OpenAIError where the engine cannot."""
        guide = {GUIDE_TYPE: constraint.kind}
        if constraint.guide:
            guide[GUIDE] = constraint.guide
        if GUIDE_TYPE not in served.model.fields:
            raise bad(constraint.param, "this engine cannot do it; leave it out")
        self.values |= guide
        self.names = {**self.names, GUIDE_TYPE: constraint.param, GUIDE: constraint.param}

    def in_pieces(self) -> None:
        """Have the engine answer piece by piece, as for a stream."""
        self.values.pop(EXCLUDE, None)
        self.values[STREAM] = True

    def matcher(self, served: Served) -> StopMatcher | None:
        """What ends one sequence's text at its stop strings; None: the engine does."""
        if not self.stops:
            return None
        return StopMatcher(
            served.tokenizer,
            list(self.stops),
            self.values.get("min_tokens", 0),
            skip_special_tokens=self.values.get(SKIP),
            include=self.include_stop,
        )


@dataclass(frozen=True)
class LogProbs:
    """Which log probabilities are wanted."""

    answer: bool = False
    top: int = 0  # of how many most likely tokens in each place
    prompt: bool = False


def read_inputs(
    served: Served, asked: Sampling, max_tokens: int, log_probs: LogProbs, streams: bool
) -> Inputs:
    """What an engine is asked. Raises OpenAIError for a field that it does not have."""
    values: dict[str, Any] = {MAX_TOKENS: max_tokens}
    for name in SAME:
        value = getattr(asked, name)
        if value is not None:
            values[name] = value
    values |= _randomness(asked)
    if log_probs.answer:
        values["return_log_probs"] = True
    if served.adapter:
        values[LORA_NAME] = served.adapter
    more: dict[str, Any] = {}
    if log_probs.top:
        more["top_log_probs"] = log_probs.top
    if log_probs.prompt:
        more["prompt_log_probs"] = True
    values |= _words(asked)
    if _knows_no_stops(served):  # the gateway alone looks for them
        values.pop(STOP_WORDS, None)
    more |= _step_inputs(served, asked)
    _check_known(served, values, asked.names)
    if streams:
        values[STREAM] = True
    elif EXCLUDE in served.model.fields and not _fixes_echo(served):
        values[EXCLUDE] = True
    if not served.is_cpp:
        values["return_finish_reason"] = True
        values.setdefault("min_tokens", 0)  # OpenAI's default; the ensemble's is 1
        return Inputs(values, more, asked.seed, asked.names)
    seed = asked.seed
    if seed is None and values["temperature"]:  # the engine would begin each answer with seed 0
        seed = random.getrandbits(SEED_BITS)
    # The engine ends at the tokens of a stop string, not at its text, and leaves it there.
    include = bool(asked.include_stop_str_in_output)
    return Inputs(values, more, seed, asked.names, stops=asked.stops, include_stop=include)


def _randomness(asked: Sampling) -> dict[str, Any]:
    """OpenAI's temperature is 1 and samples; the ensemble's is greedy where nothing is asked."""
    temperature = 1.0 if asked.temperature is None else asked.temperature
    if temperature == 0:
        return {"temperature": 0.0}
    values: dict[str, Any] = {"temperature": temperature, "top_p": asked.top_p or 1.0}
    if asked.top_k is not None and asked.top_k > 0:
        values["top_k"] = asked.top_k
    return values


def _words(asked: Sampling) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, words in ((STOP_WORDS, asked.stops), ("bad_words", asked.bad_words)):
        if words:  # one alone may be read as several with commas between; with "" it is not
            values[name] = [*words, ""] if len(words) == 1 else words
    if asked.stop_token_ids:
        values["stop_token_ids"] = asked.stop_token_ids
    if asked.ignore_eos:
        values["end_id"] = -1
    if asked.skip_special_tokens is not None:
        values[SKIP] = asked.skip_special_tokens
    return values


def _step_inputs(served: Served, asked: Sampling) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if asked.include_stop_str_in_output and asked.stops and not served.is_cpp:
        more["include_stop_words"] = True
    if asked.priority:
        more["priority"] = asked.priority
    if asked.logit_bias:
        weights = {_token(name, served): weight for name, weight in asked.logit_bias.items()}
        more |= {"bias_ids": list(weights), "bias_weights": list(weights.values())}
    return more


def _token(name: str, served: Served) -> int:
    """A token id that is the key of an object."""
    most = served.preprocessor.vocab_size - 1
    if not (name.isascii() and name.isdigit() and len(name) < 12 and int(name) <= most):
        raise bad("logit_bias", f"{name[:32]!r} is no token id; send 0 to {most}")
    return int(name)


def _check_known(served: Served, values: dict[str, Any], names: Names) -> None:
    """Raise OpenAIError for an input that this repository's ensemble does not have."""
    for name in values:
        if name not in served.model.fields:
            raise rejected(f"{name}: this engine cannot do it; leave it out", names)


def _fixes_echo(served: Served) -> bool:
    """Whether the engine alone decides whether a whole answer begins with the prompt."""
    inputs = served.preprocessor.engine_inputs
    return inputs is not None and EXCLUDE not in inputs.types


def _knows_no_stops(served: Served) -> bool:
    """Whether the C++ backend's release takes no stop strings."""
    inputs = served.preprocessor.engine_inputs
    return inputs is not None and "STOP_WORDS_IDS" not in inputs.types


def without_steps(served: Served, inputs: Inputs) -> dict[str, Any]:
    """What goes into a request by Triton's HTTP port of what the step socket takes.

    Raises OpenAIError for what has no place there.
    """
    more = dict(inputs.more)
    made: dict[str, Any] = {} if served.is_cpp else {"return_num_output_tokens": True}
    bias = served.requests.bias_input
    if bias and "bias_ids" in more:
        weights = [0.0] * served.preprocessor.vocab_size
        for token, weight in zip(more.pop("bias_ids"), more.pop("bias_weights"), strict=True):
            weights[token] = weight
        made[bias] = weights
    for name in more:
        param = STEP_ONLY.get(name)
        if param is not None:
            raise bad(
                inputs.names.get(param, param),
                "only an engine's own socket has it (not --no-short-way); leave it out",
            )
    return made


def encode(served: Served, text: str, bare: bool, param: str) -> list[int]:
    """The ids of a prompt. Raises OpenAIError that names the field `param`."""
    try:
        return served.requests.encode(text, bare)
    except RequestError as error:
        raise rejected(str(error), {"prompt": param}) from None


def check_ids(served: Served, ids: list[int], param: str) -> list[int]:
    """A prompt that was sent as ids. Raises OpenAIError."""
    most = served.preprocessor.vocab_size - 1
    if ids and max(ids) > most:
        raise bad(param, f"{max(ids)} is not in the vocabulary; send 0 to {most}")
    try:
        return served.preprocessor.limits.check_ids(ids)
    except RequestError as error:
        raise rejected(str(error), {"prompt": param}) from None


def write(
    served: Served, inputs: Inputs, ids: list[int], number: int, more: dict[str, Any]
) -> tuple[str, Written]:
    """The inner id and the engine's request for the sequence of that number.

    Each sequence has a seed of its own, so that they differ and can be had again.
    Raises OpenAIError.
    """
    values = inputs.values
    if inputs.seed is not None:
        values = {**values, "seed": (inputs.seed + number) % (1 << SEED_BITS)}
    inner_id = new_id()
    try:
        return inner_id, served.requests.write(values, inner_id, ids, more)
    except RequestError as error:
        raise rejected(str(error), inputs.names) from None
