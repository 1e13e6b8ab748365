# SPDX-License-Identifier: Apache-2.0
"""transformers' continuous batching on torch: Hugging Face checkpoints, on a CPU or on GPUs.

Paged cache, scheduling and the forward pass are the library's own. Its background thread is not
used: `step` drives one iteration itself. So the engine has one owner like any other, an error
comes up where it happened, and on several ranks nobody sleeps: the library's loop looks for work
ten times a second, which costs an idle follower up to 100 ms before the first token.

Several ranks run in lock step. Each iteration begins with rank 0 telling the others what was added
and cancelled (a collective of the library's); all then run the same batch, each with its share of
every layer, and take rank 0's choice of tokens. While rank 0 is idle the others wait in that
collective. They leave when rank 0 closes, and die with it when it dies.
"""

import contextlib
import gc
import logging
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

# What attention reads grows with every step, and torch's blocks of fixed sizes do not: every few
# steps would need new ones, until the GPU is full and all are freed in the midst of a step.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, LogitsProcessorList
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.requests import RequestStatus

from trellis.engine_host.engines.engine import (
    EngineSettings,
    Failure,
    FinishReason,
    Progress,
    Sampling,
)
from trellis.engine_host.engines.ranks import Place, sizes_that_divide
from trellis.engine_host.engines.transformers_attention import TORCH_FLASH, use_torch_flash
from trellis.engine_host.engines.transformers_limits import (
    BATCH_TOKENS,
    DEFAULT_GPU_FRACTION,
    PAGE_TOKENS,
    TransformersLimits,
)
from trellis.engine_host.engines.transformers_sampling import PerRequestSampler, SequenceSampling

log = logging.getLogger("trellis.transformers")

DEFAULT_CPU_CACHE_BYTES = 1 << 30
MAX_CPU_CACHE_TOKENS = 32768  # the mask of a CPU's attention is as wide as the cache
IDLE_SECONDS = 365 * 24 * 3600.0  # how long followers wait for work
HARD_STOP = 2  # BackgroundThreadStatus.HARD_STOP


class Footprint(NamedTuple):
    """What one rank holds for good, beside the runtime and what a step needs. Bytes."""

    weights: int
    cache: int
    cache_tokens: int

    def __str__(self) -> str:
        weights, cache = self.weights / 2**30, self.cache / 2**30
        return f"weights {weights:.2f} GiB, KV cache {cache:.2f} GiB for {self.cache_tokens} tokens"


class TransformersEngine:
    """One model (on several ranks: this rank's share of it) and what runs in it."""

    def __init__(self, settings: EngineSettings) -> None:
        self._place = Place.read()
        config = AutoConfig.from_pretrained(settings.path, local_files_only=True)
        _check(config, settings, self._place)
        model = load_model(settings, self._place)
        self._manager = model.init_continuous_batching(
            generation_config=_greedy(),
            continuous_batching_config=batching_config(model, settings, self._place),
        )
        self._use_own_sampler()
        self._manager.warmup()  # makes the batch processor and its cache
        self._processor = self._manager.batch_processor
        self._model = model
        self.facts = {"vocab_size": config.get_text_config().vocab_size}
        self._limits = TransformersLimits(**self.facts)
        cache = self._processor.cache
        self._cache_tokens = cache.num_blocks * PAGE_TOKENS
        self.footprint = Footprint(
            _weight_bytes(model), cache.cache_tensor.nbytes, self._cache_tokens
        )
        log.info("%s", self.footprint)
        self._running: dict[str, _Running] = {}
        self._failures: list[Failure] = []
        self._left = False
        self._leader_left = settings.leader_left
        if not self.follows:
            self._warm_up()
        # What is there now stays: garbage collections need not look through all of it again.
        gc.collect()
        gc.freeze()

    def _use_own_sampler(self) -> None:
        helper = self._manager.distributed_helper
        sampler = PerRequestSampler(helper.tp_broadcast_from_rank_0)
        processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([sampler]))
        processors.tensors_required = 1
        self._manager.logit_processor = processors

    def _warm_up(self) -> None:
        """The first step is slow, and takes every rank: ready means that all are there."""
        self.add(0, np.zeros(1, np.int64), Sampling(max_tokens=2))
        while self.busy:
            list(self.step())

    @property
    def follows(self) -> bool:
        """Whether this rank does what rank 0 says, and answers nobody."""
        return self._place.rank > 0

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError for what this engine does not have, by the input's name."""
        self._limits.refuse(sampling)

    def add(self, key: int, ids: np.ndarray, sampling: Sampling) -> None:
        """Queue a prompt, [n] int64; it enters the batch with the next step."""
        needed = len(ids) + sampling.max_tokens
        if needed > self._cache_tokens:
            self._failures.append(
                Failure(
                    key,
                    f"max_tokens: {sampling.max_tokens} and a prompt of {len(ids)} tokens do not"
                    f" fit into the KV cache of {self._cache_tokens} tokens",
                )
            )
            return
        end_id = next(iter(sampling.end_ids), -1)  # one is all the library takes: see `Answer`
        for sequence in range(sampling.num_return_sequences):
            name = f"{key}:{sequence}"
            self._running[name] = _Running(end_id)
            self._manager.add_request(
                ids.tolist(),
                request_id=name,
                max_new_tokens=sampling.max_tokens,
                streaming=True,
                eos_token_id=end_id,
                sequence=SequenceSampling(sampling, sequence),
            )

    def step(self) -> Iterable[Progress | Failure]:
        """One forward pass of the batch on every rank, then what each request made of it."""
        failures, self._failures = self._failures, []
        yield from failures
        if self.follows or self._running or self._processor_busy():
            self._iterate()
        while not self._manager.output_router.output_queue.empty():
            yield from self._progress(self._manager.output_router.output_queue.get())

    def _iterate(self) -> None:
        """One iteration of the library's loop. On several ranks an error ends the process.

        The ranks would no longer be in step, and a rank that waits for another waits for ever.
        """
        try:
            if self._processor.prepare_next_batch():
                self._processor._generation_step(self._model)
                self._processor.update_batch()
        except Exception:
            if self._place.world_size == 1:
                raise
            log.exception("rank %d of %d lost its peers", self._place.rank, self._place.world_size)
            os._exit(1)
        if self.follows and self._manager.background_thread_status.tp_status == HARD_STOP:
            self._leave()

    def _leave(self) -> None:
        """Rank 0 closed: nothing will come any more."""
        log.info("rank 0 left; rank %d leaves too", self._place.rank)
        self._left = True
        self._leader_left()

    def _progress(self, output: Any) -> Iterable[Progress | Failure]:
        name = output.request_id
        running = self._running.get(name)
        if running is None:
            return
        key, _, sequence = name.partition(":")
        if output.status == RequestStatus.FAILED:
            del self._running[name]
            yield Failure(int(key), f"the engine failed: {output.error}")
            return
        ids = output.generated_tokens[running.sent :]
        running.sent += len(ids)
        finish: FinishReason | None = None
        if output.is_finished():
            del self._running[name]
            finish = "stop" if ids and ids[-1] == running.end_id else "length"
        yield Progress(int(key), int(sequence), ids, finish, [], 0.0)

    def cancel(self, key: int) -> None:
        """Free the request's place in the batch and its cache pages at the next step."""
        for name in [name for name in self._running if name.startswith(f"{key}:")]:
            del self._running[name]
            self._manager.cancel_request(name)

    @property
    def busy(self) -> bool:
        """Whether anything runs or was just cancelled; a follower always is, until rank 0 left."""
        if self.follows:
            return not self._left
        return bool(self._running or self._failures) or self._processor_busy()

    def _processor_busy(self) -> bool:
        return (
            self._processor.has_pending_requests()
            or not self._manager.cancel_queue.empty()
            or not self._manager.input_queue.empty()
        )

    def close(self) -> None:
        """Tell the other ranks to leave, and leave them; the memory goes with the process."""
        if self._place.world_size > 1:
            try:
                if not self.follows:
                    self._manager.background_thread_status.request_stop(HARD_STOP, 0)
                    self._processor.prepare_next_batch()
            except Exception as error:
                log.warning("the other ranks were gone already: %s", error)
            with contextlib.suppress(Exception):  # they may be gone, and so is this one soon
                torch.distributed.destroy_process_group()
        # An interpreter that ends looks through every object that torch and transformers made:
        # seconds, of the few that a server has to end in.
        gc.freeze()


class _Running:
    """One sequence in the batch: how much of it was handed out, and what it ends on."""

    __slots__ = ("end_id", "sent")

    def __init__(self, end_id: int) -> None:
        self.end_id = end_id
        self.sent = 0


def load_model(settings: EngineSettings, place: Place) -> Any:
    """The model in evaluation mode, on this rank's device; on several ranks, this one's share."""
    where: dict[str, Any] = {}
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank)
        # cuDNN plans its attention anew for each length of the cache, and every step has another:
        # tens of milliseconds a step.
        torch.backends.cuda.enable_cudnn_sdp(False)
        where["device_map"] = f"cuda:{place.local_rank}"
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // place.local_size))
    if place.world_size > 1:
        place.export()
        os.environ.setdefault("NCCL_GRAPH_MIXING_SUPPORT", "0")
        if place.leader == "127.0.0.1":  # whatever this machine's name resolves to
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        where = {"distributed_config": DistributedConfig(tp_size=place.world_size, tp_plan="auto")}
    if settings.attention_implementation:
        where["attn_implementation"] = settings.attention_implementation
    model: Any = AutoModelForCausalLM.from_pretrained(
        settings.path, dtype=settings.dtype or "auto", local_files_only=True, **where
    )
    if not settings.attention_implementation and use_torch_flash(model):
        log.info("attention by torch's flash kernel")
    return model.eval()


def _weight_bytes(model: Any) -> int:
    """Of this rank's share: a split weight says the size of the whole."""
    weights = [*model.parameters(), *model.buffers()]
    own = (weight.to_local() if hasattr(weight, "to_local") else weight for weight in weights)
    return sum(weight.nbytes for weight in own)


def _greedy() -> Any:
    """What the library does where a request says nothing else; every request does."""
    make: Any = GenerationConfig
    return make(do_sample=False, eos_token_id=-1, pad_token_id=0)


def batching_config(model: Any, settings: EngineSettings, place: Place) -> Any:
    """The library's settings. CUDA graphs and its double buffering need a sampler on the device."""
    tokens = settings.max_tokens_in_paged_kv_cache
    if tokens is None and not torch.cuda.is_available():
        fitting = DEFAULT_CPU_CACHE_BYTES // _token_bytes(model.config, place, model.dtype)
        tokens = min(fitting, MAX_CPU_CACHE_TOKENS)
    return ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=None if tokens is None else -(-tokens // PAGE_TOKENS),
        max_memory_percent=settings.kv_cache_free_gpu_mem_fraction or DEFAULT_GPU_FRACTION,
        max_requests_per_batch=settings.max_batch_size,
        # The library's way of reading the cache in place is for the package flash-attn alone.
        max_blocks_per_request=0 if model.config._attn_implementation == TORCH_FLASH else None,
        max_batch_tokens=max(BATCH_TOKENS, settings.max_batch_size),
        allow_block_sharing=settings.enable_kv_cache_reuse,
        use_cuda_graph=False,
        use_async_batching=False,
        cpu_group_timeout=IDLE_SECONDS,
        seed=0,
    )


def _token_bytes(config: Any, place: Place, dtype: Any) -> int:
    """Bytes of KV cache that one token takes on one rank."""
    text = config.get_text_config()
    heads = text.num_key_value_heads // place.world_size
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * size * dtype.itemsize)


def _check(config: Any, settings: EngineSettings, place: Place) -> None:
    """Raise ValueError for settings and world sizes that this model cannot have."""
    text = config.get_text_config()
    heads = (text.num_attention_heads, text.num_key_value_heads)
    if any(count % place.world_size for count in heads):
        sizes = ", ".join(map(str, sizes_that_divide(*heads)))
        raise ValueError(
            f"world size {place.world_size} does not divide {heads[0]} attention heads and"
            f" {heads[1]} key/value heads; sizes that would: {sizes}"
        )
    window = settings.max_attention_window_size
    own = getattr(text, "sliding_window", None) or text.max_position_embeddings
    if window is not None and window < own:
        raise ValueError(
            f"max_attention_window_size is {window}, but this engine (transformers) keeps the"
            f" model's own window of {own}; leave it empty"
        )
