# SPDX-License-Identifier: Apache-2.0
"""Reads what a request asks of a Python engine: tensors in, checked prompts and settings out."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from trellis.contract.sampling_fields import NOT_DECOUPLED
from trellis.engine_host.answers import RETURNS
from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.guided_requests import check_guided, check_stop_words
from trellis.engine_host.sampling_inputs import read_sampling, read_words
from trellis.engine_host.sequences import Row
from trellis.engine_host.step_inputs import with_step_inputs
from trellis.errors import RequestError
from trellis.pipeline.hooks import WHOLE_ONLY, needs_whole_answers
from trellis.pipeline.limits import RequestLimits
from trellis.pipeline.model_settings import ModelSettings, load_tokenizer
from trellis.pipeline.stop_strings import StopMatcher

CLIENT_NAMES = {"streaming": "stream"}  # of flags, where the client's name is another
NEEDED = ("input_ids", "input_lengths", "request_output_len")

NO_STEP_INPUTS: Mapping[str, Any] = {}

Arrays = dict[str, np.ndarray]


class Engine(Protocol):
    """What is asked of an engine before a request is given to it."""

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError for what it does not have. Any thread."""


class Asked(NamedTuple):
    """One request: a row for each prompt."""

    prompts: list[np.ndarray]  # [n] int64 each
    rows: list[Row]
    streaming: bool
    returns: frozenset[str]  # of RETURNS, what was asked for
    skip_special_tokens: bool | None  # None: not said


class RequestReader:
    """Checks requests against the model's settings, its tokenizer and its engine. Any thread."""

    def __init__(self, settings: ModelSettings) -> None:
        """Loads the tokenizer; raises with the parameter's name."""
        self.engine_type = settings.text("engine_type")
        self.limits = RequestLimits.read(settings)
        self.vocab_size = settings.integer("vocab_size")
        self.max_seq_len = settings.integer("max_seq_len")
        self.kv_cache_tokens = settings.integer("max_tokens_in_paged_kv_cache")
        self.exclude_input = settings.flag("exclude_input_in_output", True)
        whole = WHOLE_ONLY if needs_whole_answers(settings.folder) else ""
        self.no_streams = whole if settings.decoupled else NOT_DECOUPLED
        self.tokenizer = load_tokenizer(settings)

    def read(
        self, arrays: Arrays, engine: Engine, step_inputs: Mapping[str, Any] = NO_STEP_INPUTS
    ) -> Asked:
        """What the tensors of a request ask for, [rows, ...] each, of the model's dtypes.

        `step_inputs`: what it asks besides, by the step socket, as `read_step_inputs` has it.
        Raises RequestError with the client's name of what is wrong.
        """
        streaming = flag(arrays, "streaming", False)
        if streaming and self.no_streams:
            raise RequestError(self.no_streams)
        prompts = read_prompts(arrays, self.vocab_size)
        _check_decoder(arrays, len(prompts))
        indices = range(len(prompts))
        samplings = [
            self._sampling(arrays, row, len(prompts[row]), engine, step_inputs) for row in indices
        ]
        if len({sampling.sequences for sampling in samplings}) > 1:
            raise RequestError("num_return_sequences: the prompts of one request must share it")
        skip = _choice(arrays, "skip_special_tokens")
        rows = [
            self._row(arrays, row, samplings[row], prompts[row], skip, streaming) for row in indices
        ]
        returns = frozenset(name for name in RETURNS if flag(arrays, f"return_{name}", False))
        return Asked(prompts, rows, streaming, returns, skip)

    def _sampling(
        self,
        arrays: Arrays,
        row: int,
        length: int,
        engine: Engine,
        step_inputs: Mapping[str, Any],
    ) -> Sampling:
        sampling = with_step_inputs(read_sampling(arrays, row, self.engine_type), step_inputs)
        self.limits.check_max_tokens(sampling.max_tokens)
        several = "num_return_sequences" if sampling.beam_width == 1 else "beam_width"
        self.limits.check_sequences(several, sampling.sequences)
        self.limits.check_words("bad_words", list(sampling.bad_words))
        more = set(sampling.stop_token_ids) - set(self.tokenizer.end_ids)  # the client's own
        self.limits.check_stop_token_ids(len(more))
        if sampling.guide_type:
            check_guided(sampling, self.tokenizer)
        engine.refuse(sampling)
        known = self.vocab_size or self.tokenizer.vocab_size
        if sampling.end_id >= known:
            raise RequestError(
                f"end_id: {sampling.end_id} is not in the vocabulary; use 0 to {known - 1}, or -1"
                " for none"
            )
        if (most := max(sampling.stop_token_ids, default=-1)) >= known:
            raise RequestError(
                f"stop_token_ids: {most} is not in the vocabulary; use 0 to {known - 1}"
            )
        self._check_fit(length, sampling.max_tokens)
        return sampling

    def _check_fit(self, length: int, max_tokens: int) -> None:
        """Raise RequestError for a prompt of `length` tokens and its answer that have no room."""
        if self.max_seq_len and length + max_tokens > self.max_seq_len:
            raise RequestError(
                f"max_tokens: {max_tokens} and a prompt of {length} tokens do not fit in"
                f" the {self.max_seq_len} tokens of this engine's context; send at most"
                f" {max(self.max_seq_len - length, 0)}"
            )
        if self.kv_cache_tokens and length + max_tokens > self.kv_cache_tokens:
            raise RequestError(
                f"max_tokens: {max_tokens} and a prompt of {length} tokens do not fit in"
                f" the KV cache, {self.kv_cache_tokens} tokens (max_tokens_in_paged_kv_cache)"
            )

    def _row(
        self,
        arrays: Arrays,
        row: int,
        sampling: Sampling,
        prompt: np.ndarray,
        skip: bool | None,
        streaming: bool,
    ) -> Row:
        words = read_words("stop_words", arrays, row)
        self.limits.check_words("stop_words", words)
        check_stop_words(sampling, words)
        exclude = flag(arrays, "exclude_input_in_output", self.exclude_input)
        # A stream has new tokens alone, as that of TensorRT-LLM's own engine.
        prefix = [] if exclude or streaming else prompt.tolist()
        return Row(
            stream_key=int(arrays["stream_key"].reshape(-1)[row]) if "stream_key" in arrays else 0,
            sampling=sampling,
            input_tokens=len(prompt),
            prefix=prefix,
            matcher=lambda: (
                StopMatcher(
                    self.tokenizer,
                    words,
                    sampling.min_tokens,
                    prefix,
                    sampling.bad_words,
                    skip,
                    sampling.include_stop_words,
                )
                if words or sampling.bad_words
                else None
            ),
        )


def read_prompts(arrays: Arrays, vocab_size: int | None) -> list[np.ndarray]:
    """The ids of each row, [n] int64. Raises RequestError for lengths and ids that cannot be."""
    for name in NEEDED:
        if name not in arrays:
            raise RequestError(f"{name}: missing")
    ids, lengths = arrays["input_ids"], arrays["input_lengths"].reshape(-1)
    if ids.ndim != 2 or ids.shape[0] != len(lengths):
        raise RequestError(
            f"input_lengths: {len(lengths)} for input_ids of shape {list(ids.shape)}"
        )
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= ids.shape[1]:
        raise RequestError(f"input_lengths: {lengths.tolist()} must be 1 to {ids.shape[1]}")
    prompts = [row[:length].astype(np.int64) for row, length in zip(ids, lengths, strict=True)]
    for prompt in prompts:
        if prompt.min() < 0 or (vocab_size and prompt.max() >= vocab_size):
            raise RequestError(
                f"text_input: has the token ids {prompt.min()} to {prompt.max()}; the engine knows"
                f" 0 to {vocab_size - 1 if vocab_size else 'more'}, so it does not belong to this"
                " tokenizer, or a token of the text means an image or a sound"
            )
    return prompts


def _check_decoder(arrays: Arrays, rows: int) -> None:
    """Raise RequestError for a decoder's prompt; one id a row stands for none."""
    if "decoder_input_ids" in arrays and arrays["decoder_input_ids"].size > rows:
        raise RequestError("decoder_input_ids: this engine has no decoder prompt; leave it out")


def flag(arrays: Arrays, name: str, default: bool) -> bool:
    """A switch of the whole request. Raises RequestError if its rows differ."""
    sent = _choice(arrays, name)
    return default if sent is None else sent


def _choice(arrays: Arrays, name: str) -> bool | None:
    """A switch of the whole request, None if not sent. Raises RequestError if rows differ."""
    array = arrays.get(name)
    if array is None or not array.size:
        return None
    if array.any() != array.all():
        raise RequestError(
            f"{CLIENT_NAMES.get(name, name)}: the prompts of one request must share it"
        )
    return bool(array.reshape(-1)[0])
