"""SamplingParams: the fields of the release, its checks, and what submitting does to one."""

import os
from dataclasses import dataclass
from typing import Any

from tensorrt_llm.behaviour import BEHAVIOUR


@dataclass(slots=True, kw_only=True)
class GuidedDecodingParams:
    """What an answer is held to: one of them."""

    json: Any = None
    regex: str | None = None
    grammar: str | None = None
    json_object: bool = False
    structural_tag: str | None = None

    def _validate(self) -> None:
        given = [name for name in self.__slots__ if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"Only one guide can be used for a request, but got {given}.")


@dataclass(slots=True, kw_only=True)
class _SamplingParams:
    """The fields that all releases have, in their order of meaning."""

    end_id: int | None = None
    pad_id: int | None = None
    max_tokens: int | None = 32
    bad: Any = None
    bad_token_ids: list[int] | None = None
    stop: Any = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    embedding_bias: Any = None
    logits_processor: Any = None
    apply_batched_logits_processor: bool = False
    n: int = 1
    best_of: int | None = None
    use_beam_search: bool = False
    top_k: int | None = None
    top_p: float | None = None
    top_p_min: float | None = None
    top_p_reset_ids: int | None = None
    top_p_decay: float | None = None
    seed: int | None = None
    temperature: float | None = None
    min_tokens: int | None = None
    beam_search_diversity_rate: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    length_penalty: float | None = None
    early_stopping: int | None = None
    no_repeat_ngram_size: int | None = None
    min_p: float | None = None
    beam_width_array: list[int] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    return_context_logits: bool = False
    return_generation_logits: bool = False
    exclude_input_from_output: bool = True
    return_encoder_output: bool = False
    return_perf_metrics: bool = False
    additional_model_outputs: Any = None
    lookahead_config: Any = None
    guided_decoding: Any = None
    ignore_eos: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    _stop_word_ids: list[list[int]] | None = None
    _bad_word_ids: list[list[int]] | None = None
    _stream_interval: int | None = None

    def __post_init__(self) -> None:
        if self.best_of is None:
            self.best_of = self.n
        if self.best_of < self.n:
            raise ValueError(
                f"best_of ({self.best_of}) cannot be less than the requested number of results n"
                f" ({self.n})"
            )
        if self.guided_decoding is not None:
            self.guided_decoding._validate()
        if BEHAVIOUR.numbers >= (1, 2):
            self._check_ranges()
        several = self.best_of > 1 and not self.use_beam_search
        if several and self._greedy and not os.environ.get("TLLM_ALLOW_N_GREEDY_DECODING"):
            raise ValueError(
                f"Greedy decoding in the LLM API does not allow multiple returns. Please set to"
                f" best_of=1, got best_of={self.best_of}"
            )

    def _check_ranges(self) -> None:
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise ValueError(f"require 0 <= top_p <= 1, got top_p={self.top_p}")
        if self.top_k is not None and self.top_k < 0:
            raise ValueError(f"require top_k >= 0, got top_k={self.top_k}")
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(f"require temperature >= 0, got temperature={self.temperature}")

    @property
    def _greedy(self) -> bool:
        if BEHAVIOUR.numbers < (1, 2):
            return self.top_k in (None, 1) and self.top_p in (None, 0)
        unset = self.temperature is None and self.top_p is None and self.top_k is None
        return unset or self.top_k == 1 or self.top_p == 0 or self.temperature == 0


@dataclass(slots=True, kw_only=True)
class _LateSamplingParams(_SamplingParams):
    """What late releases add."""

    logprobs_mode: Any = "RAW"
    prompt_ignore_length: int | None = None
    logprobs_simple_format: bool = False
    prompt_logprobs_simple_format: bool = False
    thinking_token_budget: int | None = None


SamplingParams: type[_SamplingParams] = _LateSamplingParams if BEHAVIOUR.late else _SamplingParams

FROM_GENERATION_CONFIG = (
    "early_stopping",
    "length_penalty",
    "min_p",
    "no_repeat_ngram_size",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
)


def set_up(params: _SamplingParams, has_tokenizer: bool, generation: dict[str, Any]) -> None:
    """What submitting does: it writes to the caller's object."""
    if params.end_id is None:
        if not has_tokenizer:
            raise ValueError(
                "tokenizer is required to reset end_id if it is None, or you can explicitly"
                " specify the end_id for SamplingParams"
            )
        raise NotImplementedError("the fake has no tokenizer")
    if params.pad_id is None:
        params.pad_id = params.end_id
    for name in ("stop", "bad"):
        if getattr(params, name) is not None:
            raise RuntimeError(
                f"{name}={getattr(params, name)!r} is not processed by tokenizer, please call the"
                " setup method"
            )
    if BEHAVIOUR.late:
        for name in FROM_GENERATION_CONFIG:
            if getattr(params, name) is None and name in generation:
                setattr(params, name, generation[name])
    params._stream_interval = 1
