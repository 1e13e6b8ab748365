# SPDX-License-Identifier: Apache-2.0
"""The inputs that only the step socket has: beside the tensors, in the body of the same request.

They are no tensors of Triton's contract: a bias for a few ids would be a number for each id of the
vocabulary there, and what they ask for has no fixed shape.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trellis.contract.sampling_fields import INT32_MAX
from trellis.engine_host.engines.engine import Sampling
from trellis.errors import RequestError

MOST_TOP_LOG_PROBS = 20  # what the libraries tell at most, unless they are loaded otherwise
BIAS_IDS, BIAS_WEIGHTS = "bias_ids", "bias_weights"


@dataclass(frozen=True, slots=True)
class StepInput:
    """One input: what may be in it. Its name is that of the field of `Sampling`."""

    allowed: Callable[[Any], bool]
    hint: str


def _integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _ids(value: Any) -> bool:
    """Whether it is a list of token ids, each once."""
    is_id = _integer(0, INT32_MAX)
    return isinstance(value, list) and all(map(is_id, value)) and len(set(value)) == len(value)


def _weights(value: Any) -> bool:
    return isinstance(value, list) and all(map(_finite, value))


def _finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


STEP_INPUTS = {
    "top_log_probs": StepInput(
        _integer(0, MOST_TOP_LOG_PROBS), f"an integer, 0 to {MOST_TOP_LOG_PROBS}"
    ),
    "prompt_log_probs": StepInput(_flag, "true or false"),
    "return_cached_tokens": StepInput(_flag, "true or false"),
    "return_total_tokens": StepInput(_flag, "true or false"),
    "include_stop_words": StepInput(_flag, "true or false"),
    "priority": StepInput(
        _integer(-INT32_MAX, INT32_MAX), "an integer of 32 bits; lower runs first"
    ),
    BIAS_IDS: StepInput(_ids, "a list of token ids, each once"),
    BIAS_WEIGHTS: StepInput(_weights, "a list of finite numbers, one for each of bias_ids"),
}


def read_step_inputs(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Sampling` that a body asks for; {} for nearly all. Raises RequestError."""
    sent = {name: body[name] for name in STEP_INPUTS if name in body}
    for name, value in sent.items():
        if not STEP_INPUTS[name].allowed(value):
            shown = str(value)[:64]
            raise RequestError(f"{name}: {shown} is not allowed; send {STEP_INPUTS[name].hint}")
    if BIAS_IDS in sent or BIAS_WEIGHTS in sent:
        sent |= _bias(sent.get(BIAS_IDS, []), sent.get(BIAS_WEIGHTS, []))
    if sent.get("top_log_probs"):
        sent["log_probs"] = True  # the chosen tokens' are told beside the likeliest
    return sent


def _bias(ids: list[int], weights: list[float]) -> dict[str, Any]:
    """Those of the ids whose weight is not 0. Raises RequestError."""
    if len(ids) != len(weights):
        raise RequestError(f"{BIAS_WEIGHTS}: {len(weights)} weights for {len(ids)} bias_ids")
    pairs = [(token, float(weight)) for token, weight in zip(ids, weights, strict=True) if weight]
    return {
        BIAS_IDS: tuple(token for token, _ in pairs),
        BIAS_WEIGHTS: tuple(weight for _, weight in pairs),
    }


def with_step_inputs(sampling: Sampling, sent: Mapping[str, Any]) -> Sampling:
    """The settings with what was sent besides. Raises RequestError for what contradicts them."""
    if not sent:
        return sampling
    if BIAS_IDS in sent and sampling.bias_ids:
        raise RequestError(f"{BIAS_IDS}: contradicts embedding_bias; send one of them")
    return replace(sampling, **sent)
