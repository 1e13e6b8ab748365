# SPDX-License-Identifier: Apache-2.0
"""The sampling inputs of TensorRT-LLM's contract, old names and new, 0.5.0 to 1.x: one table.

Python engines read them in `tensorrt_llm`; for TensorRT-LLM's own engines `preprocessing` checks
them, since nothing else stands between the client and the C++ backend. Messages are the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trellis.contract.client_inputs import STREAM
from trellis.errors import RequestError

INT32_MAX = 2**31 - 1
NOT_DECOUPLED = "stream: this repository was made with decoupled_mode:false; leave it out"


@dataclass(frozen=True, slots=True)
class Field:
    """One input: the client's name, where it goes, what may be in it, and what changes nothing."""

    client: str
    target: str
    allowed: Callable[[Any], bool]
    hint: str
    neutral: Any = 0

    def check(self, value: Any) -> None:
        """Raise RequestError for a value that makes no sense."""
        if not self.allowed(value):
            raise RequestError(f"{self.client}: {value} is not allowed; send {self.hint}")


def _between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: math.isfinite(value) and low <= value <= high


def _any(value: Any) -> bool:
    return True


# Tensor of `tensorrt_llm` -> field. Two tensors may share a target: old name and new.
FIELDS = {
    "request_output_len": Field("max_tokens", "max_tokens", _between(1, INT32_MAX), "1 or more"),
    "end_id": Field("end_id", "end_id", _between(-1, INT32_MAX), "a token id, or -1 for none", -1),
    "temperature": Field("temperature", "temperature", _between(0, 1e6), "0 (greedy) or more", 1),
    "runtime_top_k": Field("top_k", "top_k", _between(0, INT32_MAX), "0 (all) or more"),
    "runtime_top_p": Field("top_p", "top_p", _between(0, 1), "0 to 1"),
    "min_p": Field("min_p", "min_p", _between(0, 1), "0 (all) to 1"),
    "repetition_penalty": Field(
        "repetition_penalty", "repetition_penalty", _between(0.01, 100), "0.01 to 100; 1 is none", 1
    ),
    "presence_penalty": Field(
        "presence_penalty", "presence_penalty", math.isfinite, "a finite number; 0 is none"
    ),
    "frequency_penalty": Field(
        "frequency_penalty", "frequency_penalty", math.isfinite, "a finite number; 0 is none"
    ),
    "len_penalty": Field(
        "length_penalty", "length_penalty", math.isfinite, "a finite number; 1 is none", 1
    ),
    "no_repeat_ngram_size": Field(
        "no_repeat_ngram_size", "no_repeat_ngram_size", _between(0, INT32_MAX), "0 (none) or more"
    ),
    "min_tokens": Field("min_tokens", "min_tokens", _between(0, INT32_MAX), "0 or more"),
    "min_length": Field("min_length", "min_tokens", _between(0, INT32_MAX), "0 or more"),
    "seed": Field("seed", "seed", _any, ""),
    "random_seed": Field("random_seed", "seed", _any, ""),
    "beam_width": Field("beam_width", "beam_width", _between(1, 1024), "1 or more", 1),
    "num_return_sequences": Field(
        "num_return_sequences", "num_return_sequences", _between(1, 64), "1 to 64", 1
    ),
    "return_log_probs": Field("return_log_probs", "log_probs", _any, "", False),
}

# Target of a field -> tensors of `tensorrt_llm`, the newest first.
BY_TARGET: dict[str, list[str]] = {}
for _name, _spec in FIELDS.items():
    BY_TARGET.setdefault(_spec.target, []).append(_name)
_METRICS = ("return_perf_metrics", "return_kv_cache_reuse_stats")  # no release has both
# Client's name -> tensors of `tensorrt_llm`, the newest first, where they differ.
ENGINE_NAMES: dict[str, tuple[str, ...]] = {
    **{spec.client: tuple(BY_TARGET[spec.target]) for spec in FIELDS.values()},
    STREAM: ("streaming",),
    "prompt_table_extra_id": ("prompt_table_extra_ids",),
    **dict.fromkeys(_METRICS, _METRICS),
}

NEUTRAL: tuple[Any, ...] = (0, False, b"", "")


def put(values: dict[str, tuple[str, Any]], spec: Field, value: Any) -> None:
    """Check a value and note it under its target, with the name that the client used.

    Raises RequestError if it is not allowed, or if the old and the new name contradict each other.
    """
    spec.check(value)
    earlier = values.get(spec.target)
    if earlier is not None and earlier[1] != value:
        raise RequestError(
            f"{spec.client}: {value} contradicts {earlier[0]}: {earlier[1]}; send one"
        )
    values[spec.target] = (spec.client, value)


def check_together(max_tokens: int, min_tokens: int, length_penalty: float, beams: int) -> None:
    """Raise RequestError for values that contradict each other."""
    if min_tokens > max_tokens:
        raise RequestError(f"min_tokens: {min_tokens} is more than max_tokens, {max_tokens}")
    if length_penalty != 1.0 and beams == 1:
        raise RequestError(
            "length_penalty: only means something with beam_width above 1; leave it out"
        )


def engine_names(client: str) -> tuple[str, ...]:
    """What releases call the engine's input that a client's goes to, the newest first.

    >>> engine_names("top_k"), engine_names("min_length"), engine_names("lora_task_id")
    (('runtime_top_k',), ('min_tokens', 'min_length'), ('lora_task_id',))
    """
    return ENGINE_NAMES.get(client, (client,))


def cannot(client: str, engine: str) -> RequestError:
    """The error for an input that an engine does not have."""
    return RequestError(f"{client}: this engine ({engine}) cannot do it; leave it out")


def neutral(values: np.ndarray) -> bool:
    """Whether every value of an input, [rows, ...] of any dtype, asks for nothing."""
    return all(value in NEUTRAL for value in np.asarray(values).reshape(-1).tolist())
