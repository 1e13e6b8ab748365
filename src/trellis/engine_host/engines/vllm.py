# SPDX-License-Identifier: Apache-2.0
"""vLLM's AsyncLLM: Hugging Face checkpoints, on GPUs or on a CPU; token ids in and out.

Scheduling, paged cache, prefix caching and several GPUs are the library's own. It gets the
tokenizer for guides alone, where it can read it; else they are rejected by name (see
`vllm_limits.py`). Releases differ; they are told apart by what their classes have, not by their
version.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import AsyncIterator
from typing import Any, get_args

# Before the library is imported: it reads them then.
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a checkpoint is a folder here
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; without it most of the memory
# A socket's path has at most 107 bytes, of which the library's own name takes 37.
if len(os.fsencode(tempfile.gettempdir())) > 107 - 37:
    os.environ.setdefault("VLLM_RPC_BASE_PATH", "/tmp")

from vllm.config import StructuredOutputsConfig
from vllm.config.lora import MaxLoRARanks
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.envs import enable_envs_cache
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor.multiproc_executor import MultiprocExecutor

from trellis.engine_host.engines.async_engine import Events, LibraryDied
from trellis.engine_host.engines.engine import EngineSettings, Figures, Sampling
from trellis.engine_host.engines.engine_arguments import (
    ARGUMENTS_FILE,
    declared_dtype,
    read_arguments,
)
from trellis.engine_host.engines.library_tokenizer import library_tokenizer
from trellis.engine_host.engines.lora import IN_A_BATCH, Adapter, largest_rank, read_adapters
from trellis.engine_host.engines.topology import Topology
from trellis.engine_host.engines.vllm_figures import VllmFigures
from trellis.engine_host.engines.vllm_parallel import OURS as PARALLEL
from trellis.engine_host.engines.vllm_parallel import parallel_arguments, share_cores
from trellis.engine_host.engines.vllm_requests import (
    CLIENT_ERRORS,
    event,
    rejection,
    sampling_params,
)
from trellis.engine_host.engines.vocabulary import check_prompt

# What the model repository decides; everything else can be set in the file.
OURS = {
    "model": "ENGINE=",
    "tokenizer": "TOKENIZER=",
    "skip_tokenizer_init": "nothing: ids go in and come out",
    "max_num_seqs": "SET=triton_max_batch_size:N",
    "max_model_len": "SET=max_seq_len:N",
    "gpu_memory_utilization": "SET=kv_cache_free_gpu_mem_fraction:F",
    "enable_prefix_caching": "SET=enable_kv_cache_reuse:true",
    "dtype": "SET=dtype:NAME",
    **PARALLEL,
    "enable_lora": "SET=lora_adapters:NAME=FOLDER",
}


# Some defaults, as that of max_num_batched_tokens, are those of `vllm serve`.
AS_A_SERVER = UsageContext.OPENAI_API_SERVER
# The library's `auto` may begin with another one, which then gets every later guide.
GUIDES_BACKEND = "xgrammar"


class VllmLibrary:
    """One AsyncLLM."""

    def __init__(self, settings: EngineSettings) -> None:
        """Load the checkpoint. Raises RuntimeError with what kept it from that."""
        self._stats = VllmFigures()
        tokenizer = library_tokenizer(settings)
        self._guide_end = tokenizer.end_id
        self._adapters = {
            name: LoRARequest(name, adapter.number, adapter.folder)
            for name, adapter in read_adapters(settings).items()
        }
        try:
            arguments = engine_arguments(settings, tokenizer.folder)
            config = arguments.create_engine_config(AS_A_SERVER)
            _size_cache(config, settings)
            share_cores(settings, Topology.read())
            self._llm = AsyncLLM.from_vllm_config(config, stat_loggers=[self._stats.logger])
        except (ValueError, RuntimeError, OSError) as error:
            raise RuntimeError(
                f"gpt_model_path: vLLM cannot load {settings.path}: {error}"
            ) from error
        enable_envs_cache()  # else it reads the environment for each token
        self._vocab_size: int = config.model_config.get_vocab_size()
        self.facts: dict[str, Any] = {
            "vocab_size": self._vocab_size,
            "no_guides": tokenizer.missing,
            "guides_backend": arguments.structured_outputs_config.backend,
            "adapters": list(self._adapters),
            "step_tokens": config.scheduler_config.max_num_batched_tokens,
            "priority": config.scheduler_config.policy == "priority",
        }

    @property
    def steps(self) -> int:
        """That it made so far, those that made no token, too."""
        return self._stats.steps

    async def prepare(self) -> None:
        """Load the adapters: one that cannot be would end the engine at its first request."""
        for name, adapter in self._adapters.items():
            try:
                await self._llm.add_lora(adapter)
            except Exception as error:
                raise RuntimeError(
                    f"lora_adapters: {name}: vLLM cannot load {adapter.lora_path}: {error}"
                ) from error

    def check(self, ids: list[int], sampling: Sampling) -> None:
        """Raise RequestError for an id outside the vocabulary: it would end the whole engine."""
        check_prompt(ids, self._vocab_size)

    async def generate(self, key: int, ids: list[int], sampling: Sampling) -> AsyncIterator[Events]:
        """What is new of a request, as vLLM's steps bring it."""
        end, begun = self._guide_end, False
        try:
            params = sampling_params(sampling, end)
            answer = self._llm.generate(
                {"prompt_token_ids": ids},
                params,
                request_id=str(key),
                lora_request=self._adapters.get(sampling.lora_name),
                priority=sampling.priority,
            )
            async with contextlib.aclosing(answer):
                async for output in answer:
                    yield [
                        event(key, each, sampling, end, begun, output) for each in output.outputs
                    ]
                    begun = True
        except EngineDeadError as error:
            raise LibraryDied(f"vLLM's engine process is gone: {error}") from error
        except CLIENT_ERRORS as error:
            raise rejection(error, sampling) from error

    def figures(self) -> Figures:
        """As of its last step."""
        return self._stats.figures

    def why_dead(self) -> str:
        """Why its engine process is gone; '' while it lives."""
        return f"vLLM's engine process is gone: {self._llm.dead_error}" if self._llm.errored else ""

    def close(self) -> None:
        """End the library's processes."""
        self._llm.shutdown()


def engine_arguments(settings: EngineSettings, tokenizer: str = "") -> AsyncEngineArgs:
    """The library's arguments: the settings, then what `engine.yaml` adds.

    `tokenizer`: the folder that the library can read; '' for none.
    Raises ValueError for one that the library does not have, or that is set elsewhere.
    """
    arguments: dict[str, Any] = {
        "model": str(settings.path),
        "skip_tokenizer_init": not tokenizer,
        "dtype": settings.dtype or declared_dtype(settings.path),
        "max_num_seqs": settings.max_batch_size,
        "enable_prefix_caching": settings.enable_kv_cache_reuse,
    }
    if settings.max_seq_len:
        arguments["max_model_len"] = settings.max_seq_len
    if settings.kv_cache_free_gpu_mem_fraction:
        arguments["gpu_memory_utilization"] = settings.kv_cache_free_gpu_mem_fraction
    arguments |= parallel_arguments(settings, Topology.read())
    if tokenizer:
        arguments["tokenizer"] = tokenizer
    if adapters := read_adapters(settings):
        _check_dtype(arguments["dtype"])
        arguments |= _lora(adapters)
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    added = read_arguments(settings.path / ARGUMENTS_FILE, known, OURS, "vLLM")
    arguments["structured_outputs_config"] = _guides(added.pop("structured_outputs_config", {}))
    return AsyncEngineArgs(**arguments | added)


def run_workers(settings: EngineSettings) -> None:
    """Run the workers of a host above the first until they end: what `vllm serve --headless` does.

    Raises what keeps them from starting.
    """
    config = engine_arguments(settings).create_engine_config(AS_A_SERVER, headless=True)
    share_cores(settings, Topology.read())
    executor = MultiprocExecutor(config, monitor_workers=False)
    executor.start_worker_monitor(inline=True)


def _guides(added: Any) -> StructuredOutputsConfig:
    """How guides are followed. Raises ValueError for what cannot be in the file."""
    if not isinstance(added, dict):
        raise ValueError(f"{ARGUMENTS_FILE}: structured_outputs_config: not a table")
    return StructuredOutputsConfig(**{"backend": GUIDES_BACKEND} | added)


def _check_dtype(dtype: str) -> None:
    """Raise ValueError for a type of numbers that the library's kernels for adapters lack."""
    if dtype == "float32" and not current_platform.is_cpu():
        raise ValueError(
            "lora_adapters: vLLM's kernels for adapters on a GPU take no float32; make the"
            " repository with SET=dtype:bfloat16"
        )


def _lora(adapters: dict[str, Adapter]) -> dict[str, Any]:
    """The arguments for adapters.

    On a CPU every one has a place of its own and one place stays empty, for the library's kernels
    there give a request without an adapter what is in the last place.
    """
    rank = largest_rank(adapters)
    places = min(len(adapters), IN_A_BATCH)
    if current_platform.is_cpu():
        places = len(adapters) + 1
    return {
        "enable_lora": True,
        "max_lora_rank": next((size for size in get_args(MaxLoRARanks) if size >= rank), rank),
        "max_loras": places,
        "max_cpu_loras": max(len(adapters), places),
    }


def _size_cache(config: Any, settings: EngineSettings) -> None:
    """As many blocks as `max_tokens_in_paged_kv_cache` asks for, in whole blocks."""
    if settings.max_tokens_in_paged_kv_cache:
        block = config.cache_config.block_size
        blocks = -(-settings.max_tokens_in_paged_kv_cache // block)
        config.cache_config.num_gpu_blocks_override = blocks
