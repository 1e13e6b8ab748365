# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's continuous batching pipeline: GGUF files and OpenVINO IR, on a CPU.

In-flight batching, a paged KV cache and prefix caching are the library's own. What it does not
do (logit bias) or not together (beams and penalties) is refused by the input's name.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from trellis.engine_host.engines.engine import (
    EngineSettings,
    Extras,
    Failure,
    FinishReason,
    Progress,
    Sampling,
    TopLogProbs,
)
from trellis.engine_host.engines.openvino_limits import OpenVinoLimits

KV_BLOCK_TOKENS = 32  # what the CPU plugin pages the cache in
DEFAULT_CACHE_GIB = 1
MOST_MIN_P = 1 - 2**-24  # the library takes no 1; the largest 32-bit float below it
KV_CACHE_FULL = (
    "max_tokens: the KV cache has no room for this prompt and its completion; send a shorter"
    " prompt or a smaller max_tokens, or raise max_tokens_in_paged_kv_cache"
)


class OpenVinoEngine:
    """One pipeline and the handles of what runs in it."""

    def __init__(self, settings: EngineSettings) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_seqs = settings.max_batch_size
        scheduler.enable_prefix_caching = settings.enable_kv_cache_reuse
        if settings.max_tokens_in_paged_kv_cache:
            blocks = -(-settings.max_tokens_in_paged_kv_cache // KV_BLOCK_TOKENS)
            scheduler.num_kv_blocks = blocks
        else:
            scheduler.cache_size = DEFAULT_CACHE_GIB
        file = _model_file(settings)
        try:
            self._pipeline = genai.ContinuousBatchingPipeline(
                str(file), scheduler, "CPU", {"PERFORMANCE_HINT": "LATENCY"}
            )
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RuntimeError(f"gpt_model_path: OpenVINO cannot load {file}: {reason}") from error
        self._running: dict[int, _Running] = {}
        self._limits = OpenVinoLimits(settings.enable_kv_cache_reuse)
        self.facts: dict[str, Any] = {"kv_cache_reuse": settings.enable_kv_cache_reuse}
        self._warm_up()

    def _warm_up(self) -> None:
        """The first step compiles kernels: take it before the first client waits for it."""
        self.add(0, np.zeros(1, np.int64), Sampling(max_tokens=2))
        while self.busy:
            list(self.step())

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError for what the pipeline does not have, by the input's name."""
        self._limits.refuse(sampling)

    def add(self, key: int, ids: np.ndarray, sampling: Sampling) -> None:
        """Queue a prompt, [n] int64; the pipeline schedules it into its next batch."""
        tensor = openvino.Tensor(np.ascontiguousarray(ids, np.int64).reshape(1, -1))
        config = generation_config(sampling)
        if sampling.bad_words:
            config.structured_output_config = genai.StructuredOutputConfig(
                grammar=self._limits.bad_words.grammar(
                    sampling.bad_words, ends=bool(sampling.end_ids)
                )
            )
        handle = self._pipeline.add_request(key, tensor, config)
        echoed = len(ids) if sampling.prompt_log_probs else 0
        self._running[key] = _Running(handle, sampling, echoed)

    def step(self) -> Iterable[Progress | Failure]:
        """One forward pass of the batch, then what each request made of it."""
        self._pipeline.step()
        for key, running in list(self._running.items()):
            if key in self._running:  # not cancelled by what an earlier one yielded
                yield from self._drain(key, running)

    def _drain(self, key: int, running: "_Running") -> Iterable[Progress | Failure]:
        handle, beams = running.handle, running.sampling.beam_width > 1
        finished = handle.get_status() != genai.GenerationStatus.RUNNING
        while handle.can_read():
            outputs = [output for _, output in sorted(handle.read().items())]
            if beams:  # all at once, at the end: the best first
                outputs.sort(key=lambda output: -output.score)
            for index, output in enumerate(outputs):
                ids, log_probs = list(output.generated_ids), list(output.generated_log_probs)
                finish = _finish_reason(output.finish_reason)
                cum_log_prob = sum(log_probs) if beams else output.score
                made = Progress(key, index, ids, finish, log_probs, cum_log_prob)
                yield running.with_extras(made) if running.sampling.extras else made
        if finished:
            self._running.pop(key, None)
            if handle.get_status() == genai.GenerationStatus.IGNORED:
                yield Failure(key, KV_CACHE_FULL)

    def cancel(self, key: int) -> None:
        """Free the request's place in the batch and its cache blocks at the next step."""
        running = self._running.pop(key, None)
        if running is not None:
            running.handle.cancel()

    @property
    def busy(self) -> bool:
        """Whether the pipeline holds unfinished or just cancelled requests."""
        return bool(self._running) or self._pipeline.has_non_finished_requests()

    def close(self) -> None:
        """Cancel what runs; the pipeline frees its memory when it is collected."""
        for key in list(self._running):
            self.cancel(key)


@dataclass(slots=True)
class _Running:
    """One request in the pipeline."""

    handle: Any
    sampling: Sampling
    echoed: int  # the prompt's tokens in front of the next ids

    def with_extras(self, made: Progress) -> Progress:
        """The same without the prompt in front, and with what is asked for besides."""
        count, self.echoed = self.echoed, 0
        ids, log_probs = made.ids[count:], made.log_probs[count:]
        tops = [[pair] for pair in zip(ids, log_probs, strict=True)]  # the likeliest was chosen
        prompt: list[tuple[float, TopLogProbs] | None] | None = None
        if count:  # the first token's log probability is none
            prompt = [None, *((value, []) for value in made.log_probs[1:count])]
        extras = Extras(tops if self.sampling.top_log_probs else [], prompt)
        return made._replace(ids=ids, log_probs=log_probs, extras=extras)


def generation_config(sampling: Sampling) -> Any:
    """The library's GenerationConfig for one request."""
    config = genai.GenerationConfig()
    config.max_new_tokens = sampling.max_tokens
    config.min_new_tokens = sampling.min_tokens
    if ends := sampling.end_ids:
        config.eos_token_id = ends[0]  # without one the library takes the model's own
        config.stop_token_ids = set(ends)
    else:
        config.ignore_eos = True
    config.repetition_penalty = sampling.repetition_penalty
    config.presence_penalty = sampling.presence_penalty
    config.frequency_penalty = sampling.frequency_penalty
    config.num_return_sequences = sampling.num_return_sequences
    config.logprobs = 1 if sampling.log_probs or sampling.prompt_log_probs else 0
    config.echo = sampling.prompt_log_probs
    if sampling.beam_width > 1:
        config.num_beams = config.num_return_sequences = sampling.beam_width
        config.length_penalty = sampling.length_penalty
    config.do_sample = sampling.sample
    if sampling.sample:
        config.temperature = sampling.temperature
        config.rng_seed = sampling.seed
        if 0 < sampling.top_p < 1:
            config.top_p = sampling.top_p
        if sampling.top_k > 0:
            config.top_k = sampling.top_k
        if sampling.min_p > 0:
            config.min_p = min(sampling.min_p, MOST_MIN_P)
    return config


def _finish_reason(reason: Any) -> FinishReason | None:
    if reason == genai.GenerationFinishReason.STOP:
        return "stop"
    return "length" if reason == genai.GenerationFinishReason.LENGTH else None


def _model_file(settings: EngineSettings) -> Any:
    """The GGUF file of an engine folder, or the folder itself when it holds OpenVINO IR."""
    files = sorted(settings.path.glob("*.gguf"))
    return files[0] if files else settings.path
