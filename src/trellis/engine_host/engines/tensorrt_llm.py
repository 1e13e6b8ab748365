# SPDX-License-Identifier: Apache-2.0
"""TensorRT-LLM's LLM API: Hugging Face checkpoints on GPUs; token ids in and out.

The engine `llmapi`, not to be taken for `tensorrtllm`, the C++ backend, which runs without us. The
library gets the tokenizer for guides alone, where it can read it; else they are rejected by name
(`tensorrt_llm_limits.py`). Releases 1.0 to 1.4 are told apart by what their classes have, and by
their version where a behaviour changed under the same names.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

# Before the library is imported: it reads them then.
os.environ.setdefault("TRTLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a checkpoint is a folder here

from tensorrt_llm import LLM
from tensorrt_llm.executor.request import LoRARequest
from tensorrt_llm.executor.utils import RequestError as LibraryRequestError
from tensorrt_llm.llmapi import KvCacheConfig
from tensorrt_llm.llmapi.llm_args import TorchLlmArgs

from trellis.contract.client_inputs import GUIDE, PROMPT
from trellis.engine_host.engines.async_engine import Events, LibraryDied
from trellis.engine_host.engines.engine import EngineSettings, Figures, Sampling
from trellis.engine_host.engines.engine_arguments import (
    ARGUMENTS_FILE,
    check_names,
    declared_dtype,
    read_arguments,
)
from trellis.engine_host.engines.library_tokenizer import library_tokenizer
from trellis.engine_host.engines.lora import (
    IN_A_BATCH,
    Adapter,
    largest_rank,
    read_adapters,
)
from trellis.engine_host.engines.tensorrt_llm_answers import NewTokens
from trellis.engine_host.engines.tensorrt_llm_requests import (
    check_grammar,
    one_sampler,
    sampling_params,
)
from trellis.engine_host.engines.tensorrt_llm_workers import dies_within, find_workers
from trellis.engine_host.engines.vocabulary import check_prompt
from trellis.errors import RequestError

LIBRARY = "TensorRT-LLM"
# What the model repository decides; everything else can be set in the file.
OURS = {
    "model": "ENGINE=",
    "tokenizer": "TOKENIZER=",
    "skip_tokenizer_init": "nothing: ids go in and come out",
    "max_batch_size": "SET=triton_max_batch_size:N",
    "max_seq_len": "SET=max_seq_len:N",
    "dtype": "SET=dtype:NAME",
    "tensor_parallel_size": "TP= and --world_size N",
    "pipeline_parallel_size": "PP= and --world_size N",
    "enable_lora": "SET=lora_adapters:NAME=FOLDER",
    "lora_config": "SET=lora_adapters:NAME=FOLDER",
}
OUR_CACHE = {
    "enable_block_reuse": "SET=enable_kv_cache_reuse:true",
    "free_gpu_memory_fraction": "SET=kv_cache_free_gpu_mem_fraction:F",
    "max_tokens": "SET=max_tokens_in_paged_kv_cache:N",
    "max_attention_window": "SET=max_attention_window_size:N",
}
# Until its candidate 26 of 1.3.0 the library had two samplers, of which the one in C++ alone heeds
# seeds and penalties.
CPP_SAMPLER: dict[str, Any] = {
    "enable_trtllm_sampler": True,
    "sampler_type": "TRTLLMSampler",
}
# Modules of a checkpoint that an adapter may change -> the library's names.
LORA_MODULES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_dense",
    "gate_proj": "mlp_h_to_4h",
    "down_proj": "mlp_4h_to_h",
    "up_proj": "mlp_gate",
}
GUIDES_BACKEND = "xgrammar"  # unless the file names another
DYING_SECONDS = 2.0  # of a process that a signal ended
SILENCE_SECONDS = 300.0  # without any token, while requests run; the library gives a step as much


class TensorRtLlmLibrary:
    """One LLM."""

    steps = 0  # it does not say when it made one

    def __init__(self, settings: EngineSettings) -> None:
        """Load the checkpoint. Raises RuntimeError with what kept it from that."""
        tokenizer = library_tokenizer(settings)
        self._guide_end = tokenizer.end_id
        self._adapters = {
            name: LoRARequest(name, adapter.number, adapter.folder)
            for name, adapter in read_adapters(settings).items()
        }
        try:
            arguments = engine_arguments(settings, tokenizer.folder)
            self._llm = LLM(**arguments)
        except (ValueError, RuntimeError, OSError) as error:
            raise RuntimeError(
                f"gpt_model_path: {LIBRARY} cannot load {settings.path}: {error}"
            ) from error
        self._workers = find_workers(os.getpid())
        self._running = 0
        self._heard = 0.0  # when the last answer came, or the first of those that run began
        self._vocab_size = _vocab_size(settings)
        self.facts: dict[str, Any] = {
            "vocab_size": self._vocab_size,
            "beam_width": arguments.get("max_beam_width") or 1,
            "no_guides": tokenizer.missing,
            "guides_backend": arguments.get("guided_decoding_backend", ""),
            "adapters": list(self._adapters),
            "top_log_probs": one_sampler(),
            "ngrams": not one_sampler(),  # not all releases of that one heed it
        }

    async def prepare(self) -> None:
        """Nothing: the library loads an adapter with its first request."""

    def check(self, ids: list[int], sampling: Sampling) -> None:
        """Raise RequestError for an id outside the vocabulary."""
        check_prompt(ids, self._vocab_size)

    async def generate(self, key: int, ids: list[int], sampling: Sampling) -> AsyncIterator[Events]:
        """What is new of a request, as the library's answers bring it."""
        if sampling.guide_type:
            await asyncio.to_thread(check_grammar, sampling)
        new, answer = NewTokens(key, sampling, self._guide_end), self._submit(ids, sampling)
        if not self._running:
            self._heard = time.monotonic()
        self._running += 1
        try:
            while not answer.finished:
                await self._next(answer, sampling, new.begun)
                yield new.take(answer)
        finally:
            self._running -= 1
            if not answer.finished:
                # It may be gone, which is no matter then; nothing is read of this request after.
                with contextlib.suppress(Exception):
                    answer.abort()

    def figures(self) -> Figures:
        """None: the library gathers them where it is asked to before each step, at their cost."""
        return Figures()

    def why_dead(self) -> str:
        """Why the library is gone or hangs; '' while it lives."""
        executor = getattr(self._llm, "_executor", None)
        if executor is None or executor.is_shutdown():
            return f"{LIBRARY} shut itself down; its last lines are above"
        check = getattr(self._llm, "_check_health", None)  # late releases
        healthy = check is None or check()
        # A dead worker says more than the library does, which may see it first; nothing else runs.
        if dead := dies_within(0.0 if healthy else DYING_SECONDS, self._workers):
            return f"{LIBRARY}'s worker is gone (process {dead.process})"
        if not healthy:
            return f"{LIBRARY} says that it is not healthy; its last lines are above"
        silent = time.monotonic() - self._heard
        if self._running and silent > SILENCE_SECONDS:
            return f"{LIBRARY} made no token in {silent:.0f} s, with {self._running} requests"
        return ""

    def close(self) -> None:
        """End the library's processes; may never return."""
        self._llm.shutdown()

    def _submit(self, ids: list[int], sampling: Sampling) -> Any:
        """Hand a request over, on the event loop that will read its answer."""
        # Ours: what fails in it is no death of the library.
        params = sampling_params(sampling, self._vocab_size, self._guide_end)
        try:
            return self._llm.generate_async(
                inputs={"prompt_token_ids": ids},
                sampling_params=params,
                lora_request=self._adapters.get(sampling.lora_name),
                streaming=sampling.beam_width == 1,
            )
        except Exception as error:
            raise self._meaning(error, sampling, begun=False) from error

    async def _next(self, answer: Any, sampling: Sampling, begun: bool) -> None:
        """Wait for a change of an answer. After an error it must not be waited for again."""
        try:
            await anext(answer)
        except Exception as error:
            raise self._meaning(error, sampling, begun) from error
        self._heard = time.monotonic()

    def _meaning(self, error: Exception, sampling: Sampling, begun: bool) -> Exception:
        """One request's error, or the end of the library, which any other kind is.

        The library has one kind for what it rejects and for what goes wrong later: the first
        token tells them apart.
        """
        if why := self.why_dead():
            return LibraryDied(f"{why}: {error}")
        if isinstance(error, (LibraryRequestError, ValueError)):
            if begun:
                return RuntimeError(f"{LIBRARY} failed this request: {error}")
            client = GUIDE if sampling.guide_type else PROMPT
            return RequestError(f"{client}: {LIBRARY} rejected the request: {error}")
        return LibraryDied(f"{LIBRARY} failed: {type(error).__name__}: {error}")


def engine_arguments(settings: EngineSettings, tokenizer: str = "") -> dict[str, Any]:
    """The library's arguments: the settings, then what `engine.yaml` adds.

    `tokenizer`: the folder that the library can read; '' for none.
    Raises ValueError for one that the library does not have, or that is set elsewhere.
    """
    known = TorchLlmArgs.model_fields
    sampler = {} if one_sampler() else {k: v for k, v in CPP_SAMPLER.items() if k in known}
    ours = OURS | dict.fromkeys(sampler, "nothing: no other sampler heeds seeds and penalties")
    added = read_arguments(settings.path / ARGUMENTS_FILE, known, ours, LIBRARY)
    arguments: dict[str, Any] = {
        "model": str(settings.path),
        "skip_tokenizer_init": not tokenizer,
        "dtype": settings.dtype or declared_dtype(settings.path),
        "max_batch_size": settings.max_batch_size,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "pipeline_parallel_size": settings.pipeline_parallel_size,
        **sampler,
    }
    if tokenizer:
        arguments |= {"tokenizer": tokenizer, "guided_decoding_backend": GUIDES_BACKEND}
    if adapters := read_adapters(settings):
        arguments["lora_config"] = _lora(adapters)
    if settings.max_seq_len:
        arguments["max_seq_len"] = settings.max_seq_len
        if "max_input_len" in known:  # late releases: 1,024 by default
            arguments["max_input_len"] = settings.max_seq_len - 1
    cache = _cache(settings, added.pop("kv_cache_config", None) or {})
    return arguments | added | {"kv_cache_config": KvCacheConfig(**cache)}


def _cache(settings: EngineSettings, added: dict[str, Any]) -> dict[str, Any]:
    """The arguments of KvCacheConfig. Raises ValueError for one that cannot be in the file."""
    if not isinstance(added, dict):
        raise ValueError(f"{ARGUMENTS_FILE}: kv_cache_config: not a table")
    check_names(added, KvCacheConfig.model_fields, OUR_CACHE, LIBRARY, "kv_cache_config.")
    arguments: dict[str, Any] = {"enable_block_reuse": settings.enable_kv_cache_reuse}
    if settings.kv_cache_free_gpu_mem_fraction:
        arguments["free_gpu_memory_fraction"] = settings.kv_cache_free_gpu_mem_fraction
    if settings.max_tokens_in_paged_kv_cache:
        arguments["max_tokens"] = settings.max_tokens_in_paged_kv_cache
    if settings.max_attention_window_size:
        arguments["max_attention_window"] = [settings.max_attention_window_size]
    return arguments | added


def _lora(adapters: dict[str, Adapter]) -> dict[str, Any]:
    """The arguments of LoraConfig. Raises ValueError for a module that the library cannot adapt."""
    hf_modules = frozenset().union(*(adapter.modules for adapter in adapters.values()))
    if unknown := sorted(hf_modules - LORA_MODULES.keys()):
        raise ValueError(
            f"lora_adapters: {LIBRARY} cannot adapt {unknown[0]}; it takes"
            f" {', '.join(LORA_MODULES)}"
        )
    return {
        "lora_target_modules": sorted(LORA_MODULES[name] for name in hf_modules),
        "max_lora_rank": largest_rank(adapters),
        "max_loras": min(len(adapters), IN_A_BATCH),
        "max_cpu_loras": len(adapters),
    }


def _vocab_size(settings: EngineSettings) -> int:
    config = json.loads((settings.path / "config.json").read_text())
    return int(config.get("text_config", config)["vocab_size"])
