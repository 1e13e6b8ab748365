# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's continuous batching pipeline: GGUF files and OpenVINO IR, on a CPU.

In-flight batching, a paged KV cache and prefix caching are the library's own. What it does not
do (logit bias) or not together (beams and penalties) is refused by the input's name.
"""

import gc
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from trellis.engine_host.engines.engine import (
    EngineSettings,
    Extras,
    Failure,
    Figures,
    FinishReason,
    Progress,
    Sampling,
    TopLogProbs,
)
from trellis.engine_host.engines.lora import read_adapters
from trellis.engine_host.engines.openvino_adapters import OpenVinoAdapters
from trellis.engine_host.engines.openvino_guides import OpenVinoGuides, structured_output
from trellis.engine_host.engines.openvino_limits import OpenVinoLimits
from trellis.engine_host.engines.openvino_pipeline import load_pipeline, speculation
from trellis.engine_host.engines.openvino_queue import (
    KV_BLOCK_TOKENS,
    OpenVinoQueue,
    Waiting,
    cache_blocks,
)
from trellis.errors import RequestError
from trellis.guides.translate import Guide

log = logging.getLogger("trellis.engine")

MOST_MIN_P = 1 - 2**-24  # the library takes no 1; the largest 32-bit float below it
RELOAD_SECONDS = 900.0  # that loading the pipeline anew may take before it counts as a hang
WAIT_SECONDS = 0.05  # for a guide, while nothing else runs
KV_CACHE_FULL = (
    "max_tokens: the KV cache has no room for this prompt and its completion; send a shorter"
    " prompt or a smaller max_tokens, or raise max_tokens_in_paged_kv_cache"
)

PREFIXES_OF_ADAPTERS = (
    "lora_adapters: not with enable_kv_cache_reuse, since OpenVINO's prefix cache is one for all"
    " adapters; set it to false"
)


class OpenVinoEngine:
    """One pipeline and the handles of what runs in it."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self.allow: Callable[[float], None] = lambda seconds: None
        adapters = read_adapters(settings)
        if adapters and settings.enable_kv_cache_reuse:
            raise RuntimeError(PREFIXES_OF_ADAPTERS)
        self._speculation = speculation(settings)
        self._queue = OpenVinoQueue(_room(settings))
        self._running: dict[int, _Running] = {}
        self._held: dict[int, Waiting] = {}  # until the pipeline is loaded anew
        self.facts: dict[str, Any] = {
            "kv_cache_reuse": settings.enable_kv_cache_reuse,
            "adapters": list(adapters),
            "speculates": bool(self._speculation.tokens),
            "draft_model": bool(settings.draft_engine),
        }
        self._limits = OpenVinoLimits(**self.facts)
        self.facts["step_tokens"] = genai.SchedulerConfig().max_num_batched_tokens
        self._load()

    def _load(self) -> None:
        """Load the pipeline. Raises RuntimeError with what kept it from that."""
        self._adapters = OpenVinoAdapters(read_adapters(self._settings))
        self._pipeline = load_pipeline(self._settings, self._adapters.properties)
        self._guide_end: int = self._pipeline.get_tokenizer().get_eos_token_id()
        self._warm_up()
        self._guides = OpenVinoGuides(self._pipeline.get_tokenizer())

    def _warm_up(self) -> None:
        """The first step compiles kernels, and the first guide reads the vocabulary.

        Take both before a client waits for them.
        """
        first = Sampling(max_tokens=2)
        guided = Sampling(max_tokens=2, guide_type="ebnf_grammar", guide='root ::= "a"')
        for sampling in (first, guided):
            self._start(0, np.zeros(1, np.int64), sampling)
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()
            self._running.pop(0).handle.read()

    def _reload(self) -> None:
        """Load the pipeline anew, without the guides that the library keeps for good."""
        log.info("loading the pipeline anew: the library keeps too many guides")
        self.allow(RELOAD_SECONDS)
        self._guides.close()
        del self._guides, self._pipeline
        gc.collect()
        self._load()

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError for what the pipeline does not have, by the input's name."""
        self._limits.refuse(sampling)

    def add(self, key: int, ids: np.ndarray, sampling: Sampling) -> None:
        """Queue a prompt, [n] int64; the pipeline schedules it into its next batch.

        With a guide it waits until that is compiled, with adapters or speculation until the
        pipeline can take it.
        """
        asked, guide = Waiting(key, ids, sampling), _guide(sampling)
        ready = guide is None or self._guides.is_ready(guide)
        if guide is not None and not (ready or self._held or self._guides.full):
            self._guides.wait_for(key, guide, asked)
        elif self._held or not ready:
            self._held[key] = asked
        else:
            self._enqueue(asked)

    def _enqueue(self, asked: Waiting) -> None:
        if self._adapters or self._speculation.tokens:
            self._queue.put(asked)
        else:
            self._start(*asked)

    def _start(self, key: int, ids: np.ndarray, sampling: Sampling) -> None:
        """Hand a request to the pipeline."""
        tensor = openvino.Tensor(np.ascontiguousarray(ids, np.int64).reshape(1, -1))
        handle = self._pipeline.add_request(key, tensor, self._config(sampling))
        echoed = len(ids) if sampling.prompt_log_probs else 0
        self._running[key] = _Running(handle, sampling, echoed)

    def _config(self, sampling: Sampling) -> Any:
        config = generation_config(sampling, self._guide_end)
        self._speculation.tell(config)
        if sampling.bad_words:
            config.structured_output_config = genai.StructuredOutputConfig(
                grammar=self._limits.bad_words.grammar(
                    sampling.bad_words, ends=bool(sampling.end_ids)
                )
            )
        guide = _guide(sampling)
        if guide is not None:
            config.structured_output_config = structured_output(guide)
        return config

    def step(self) -> Iterable[Progress | Failure]:
        """One forward pass of the batch, then what each request made of it."""
        idle = not (self._running or self._queue or self._pipeline.has_non_finished_requests())
        for key, asked in self._guides.taken(WAIT_SECONDS if idle else 0):
            if isinstance(asked, RequestError):
                yield Failure(key, str(asked), rejected=True)
            else:
                self._enqueue(asked)
        if self._held and idle and not (self._running or self._queue or self._guides.busy):
            self._start_held()
        yield from self._admit()
        if not self._running and not self._pipeline.has_non_finished_requests():
            return
        self._pipeline.step()
        self._queue.stepped()
        for key, running in list(self._running.items()):
            if key in self._running:  # not cancelled by what an earlier one yielded
                yield from self._drain(key, running)

    def _start_held(self) -> None:
        """Load the pipeline anew for what waits for that."""
        self._reload()
        held, self._held = self._held, {}
        for key, asked in held.items():
            guide = _guide(asked.sampling)
            if guide is None:
                self._enqueue(asked)
            else:
                self._guides.wait_for(key, guide, asked)

    def _admit(self) -> Iterable[Failure]:
        """Start those who wait, as far as the pipeline can take them."""
        while self._queue:
            idle = not (self._running or self._pipeline.has_non_finished_requests())
            waiting = self._queue.take(self._adapters.applied, idle)
            if waiting is None:
                return
            try:
                if self._queue.too_long(waiting):
                    raise RuntimeError(KV_CACHE_FULL)
                name = waiting.sampling.lora_name
                self._adapters.apply(name, self._pipeline, self._config(Sampling()))
                self._start(*waiting)
            except RuntimeError as error:
                self._queue.forget(waiting.key)
                yield Failure(waiting.key, str(error))

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
                if finish == "stop" and running.ends_guide(ids, self._guide_end):
                    del ids[-1:], log_probs[-1:]
                cum_log_prob = sum(log_probs) if beams else output.score
                made = Progress(key, index, ids, finish, log_probs, cum_log_prob)
                yield running.with_extras(made) if running.sampling.extras else made
        if finished:
            self._running.pop(key, None)
            self._queue.forget(key)
            if handle.get_status() == genai.GenerationStatus.IGNORED:
                yield Failure(key, KV_CACHE_FULL)

    def figures(self) -> Figures:
        """The cache's use as of the last step, and the guides; prefix hits the library keeps."""
        usage = self._pipeline.get_metrics().cache_usage / 100 if self._running else 0.0
        return Figures(
            kv_cache_usage=usage,
            constraints=self._guides.compiled,
            constraint_seconds=self._guides.seconds,
        )

    def cancel(self, key: int) -> None:
        """Free the request's place in the batch and its cache blocks at the next step."""
        self._guides.forget(key)
        self._held.pop(key, None)
        self._queue.forget(key)
        running = self._running.pop(key, None)
        if running is not None:
            running.handle.cancel()

    @property
    def busy(self) -> bool:
        """Whether the pipeline holds unfinished or just cancelled requests, or some wait for it."""
        if self._running or self._held or self._queue or self._guides.busy:
            return True
        return bool(self._pipeline.has_non_finished_requests())

    def close(self) -> None:
        """Cancel what runs; the pipeline frees its memory when it is collected."""
        self._queue.clear()
        for key in list(self._running):
            self.cancel(key)
        self._guides.close()


@dataclass(slots=True)
class _Running:
    """One request in the pipeline."""

    handle: Any
    sampling: Sampling
    echoed: int  # the prompt's tokens in front of the next ids

    def ends_guide(self, ids: list[int], guide_end: int) -> bool:
        """Whether the last of `ids` is the guide's end and not the text's."""
        sampling = self.sampling
        guided = bool(sampling.guide_type) and guide_end not in sampling.end_ids
        return guided and ids[-1:] == [guide_end]

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


def _guide(sampling: Sampling) -> Guide | None:
    """What the answer is held to; None: nothing."""
    return Guide(sampling.guide_type, sampling.guide) if sampling.guide_type else None


def generation_config(sampling: Sampling, guide_end: int = -1) -> Any:
    """The library's GenerationConfig for one request.

    `guide_end`: the id that ends a guide, whatever ends the client has.
    """
    config = genai.GenerationConfig()
    config.max_new_tokens = sampling.max_tokens
    config.min_new_tokens = 0 if sampling.guide_type else sampling.min_tokens
    ends = sampling.end_ids
    if sampling.guide_type:
        ends = tuple(dict.fromkeys((*ends, guide_end)))
    if ends:
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
        if sampling.no_repeat_ngram_size:
            config.no_repeat_ngram_size = sampling.no_repeat_ngram_size
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


def _room(settings: EngineSettings) -> int | None:
    """Tokens of the KV cache where tokens are guessed. Raises RuntimeError if it is not said."""
    if not (settings.prompt_lookup or settings.draft_engine):
        return None
    if not settings.max_tokens_in_paged_kv_cache:
        raise RuntimeError(
            "max_tokens_in_paged_kv_cache: with prompt_lookup or draft_engine, say how many"
        )
    return cache_blocks(settings.max_tokens_in_paged_kv_cache) * KV_BLOCK_TOKENS


def _finish_reason(reason: Any) -> FinishReason | None:
    if reason == genai.GenerationFinishReason.STOP:
        return "stop"
    return "length" if reason == genai.GenerationFinishReason.LENGTH else None
