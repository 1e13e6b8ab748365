# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's continuous batching pipeline: GGUF files and OpenVINO IR, on a CPU.

In-flight batching, a paged KV cache and prefix caching are the library's own. What it does not
do (logit bias) or not together (beams and penalties) is refused by the input's name.
"""

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
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
from trellis.engine_host.engines.openvino_guides import GuideCompiler, structured_output
from trellis.engine_host.engines.openvino_limits import OpenVinoLimits
from trellis.errors import RequestError

KV_BLOCK_TOKENS = 32  # what the CPU plugin pages the cache in
DEFAULT_CACHE_GIB = 1
MOST_MIN_P = 1 - 2**-24  # the library takes no 1; the largest 32-bit float below it
WAIT_SECONDS = 0.05  # for a guide, while nothing else runs
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
        self._guide_end: int = self._pipeline.get_tokenizer().get_eos_token_id()
        self._running: dict[int, _Running] = {}
        self._waiting: dict[int, _Waiting] = {}  # for their guides
        self._limits = OpenVinoLimits(settings.enable_kv_cache_reuse)
        self.facts: dict[str, Any] = {"kv_cache_reuse": settings.enable_kv_cache_reuse}
        self._warm_up()

    def _warm_up(self) -> None:
        """The first step compiles kernels: take it before the first client waits for it."""
        self.add(0, np.zeros(1, np.int64), Sampling(max_tokens=2))
        while self.busy:
            list(self.step())
        self._prepare_guides()

    def _prepare_guides(self) -> None:
        """Have the pipeline follow one, for which it reads the vocabulary once."""
        config = generation_config(Sampling(max_tokens=2), self._guide_end)
        config.structured_output_config = genai.StructuredOutputConfig(grammar='root ::= "a"')
        self._start(0, openvino.Tensor(np.zeros((1, 1), np.int64)), config, Sampling())
        while self.busy:
            list(self.step())
        self._guides = GuideCompiler(self._pipeline.get_tokenizer())

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError for what the pipeline does not have, by the input's name."""
        self._limits.refuse(sampling)

    def add(self, key: int, ids: np.ndarray, sampling: Sampling) -> None:
        """Queue a prompt, [n] int64; the pipeline schedules it into its next batch."""
        tensor = openvino.Tensor(np.ascontiguousarray(ids, np.int64).reshape(1, -1))
        config = generation_config(sampling, self._guide_end)
        if sampling.bad_words:
            config.structured_output_config = genai.StructuredOutputConfig(
                grammar=self._limits.bad_words.grammar(
                    sampling.bad_words, ends=bool(sampling.end_ids)
                )
            )
        if sampling.guide_type:
            config.structured_output_config = structured_output(sampling)
            compiled = self._guides.compile(config)
            self._waiting[key] = _Waiting(compiled, tensor, config, sampling)
        else:
            self._start(key, tensor, config, sampling)

    def _start(self, key: int, ids: Any, config: Any, sampling: Sampling) -> None:
        """Hand a request, [1, n] int64, to the pipeline."""
        handle = self._pipeline.add_request(key, ids, config)
        echoed = ids.get_size() if sampling.prompt_log_probs else 0
        self._running[key] = _Running(handle, sampling, echoed)

    def step(self) -> Iterable[Progress | Failure]:
        """One forward pass of the batch, then what each request made of it."""
        yield from self._start_compiled()
        if not self._pipeline.has_non_finished_requests() and not self._running:
            return
        self._pipeline.step()
        for key, running in list(self._running.items()):
            if key in self._running:  # not cancelled by what an earlier one yielded
                yield from self._drain(key, running)

    def _start_compiled(self) -> Iterable[Failure]:
        """Start what waited for a guide that is compiled now; waits for one if nothing runs."""
        if not self._waiting:
            return
        if not self._running:
            waited_for = [each.compiled for each in self._waiting.values()]
            wait(waited_for, WAIT_SECONDS, FIRST_COMPLETED)
        for key, each in list(self._waiting.items()):
            if key in self._waiting and each.compiled.done():
                del self._waiting[key]
                try:
                    each.compiled.result()
                except RequestError as error:
                    yield Failure(key, str(error), rejected=True)
                else:
                    self._start(key, each.ids, each.config, each.sampling)

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
            if handle.get_status() == genai.GenerationStatus.IGNORED:
                yield Failure(key, KV_CACHE_FULL)

    def cancel(self, key: int) -> None:
        """Free the request's place in the batch and its cache blocks at the next step."""
        self._waiting.pop(key, None)
        running = self._running.pop(key, None)
        if running is not None:
            running.handle.cancel()

    @property
    def busy(self) -> bool:
        """Whether the pipeline holds unfinished or just cancelled requests."""
        if self._running or self._waiting:
            return True
        return bool(self._pipeline.has_non_finished_requests())

    def close(self) -> None:
        """Cancel what runs; the pipeline frees its memory when it is collected."""
        for key in [*self._running, *self._waiting]:
            self.cancel(key)
        self._guides.close()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request whose guide is being compiled."""

    compiled: "Future[None]"
    ids: Any  # [1, n] int64
    config: Any
    sampling: Sampling


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
