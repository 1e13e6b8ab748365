# SPDX-License-Identifier: Apache-2.0
"""vLLM's AsyncLLM: Hugging Face checkpoints, on GPUs or on a CPU; token ids in and out.

Scheduling, paged cache, prefix caching and several GPUs are the library's own. It gets no
tokenizer, so whatever needs one is rejected by name (see `vllm_limits.py`). Releases differ; they
are told apart by what their classes have, not by their version.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import AsyncIterator
from typing import Any

# Before the library is imported: it reads them then.
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a checkpoint is a folder here
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; without it most of the memory
# A socket's path has at most 107 bytes, of which the library's own name takes 37.
if len(os.fsencode(tempfile.gettempdir())) > 107 - 37:
    os.environ.setdefault("VLLM_RPC_BASE_PATH", "/tmp")

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor.multiproc_executor import MultiprocExecutor

from trellis.engine_host.engines.async_engine import Events, LibraryDied
from trellis.engine_host.engines.engine import (
    EngineSettings,
    Failure,
    FinishReason,
    Progress,
    Sampling,
)
from trellis.engine_host.engines.engine_arguments import (
    ARGUMENTS_FILE,
    declared_dtype,
    read_arguments,
)
from trellis.engine_host.engines.topology import Topology
from trellis.engine_host.engines.vllm_parallel import OURS as PARALLEL
from trellis.engine_host.engines.vllm_parallel import parallel_arguments, share_cores
from trellis.engine_host.engines.vocabulary import check_prompt

# What the model repository decides; everything else can be set in the file.
OURS = {
    "model": "ENGINE=",
    "tokenizer": "TOKENIZER=",
    "skip_tokenizer_init": "nothing: ids go in and come out",
    "max_num_seqs": "SET=triton_max_batch_size:N",
    "dtype": "SET=dtype:NAME",
    **PARALLEL,
}
FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "repetition": "stop",
    "length": "length",
    "abort": "cancelled",
}


class VllmLibrary:
    """One AsyncLLM."""

    def __init__(self, settings: EngineSettings) -> None:
        """Load the checkpoint. Raises RuntimeError with what kept it from that."""
        try:
            config = engine_arguments(settings).create_engine_config()
            _size_cache(config, settings)
            share_cores(settings, Topology.read())
            self._llm = AsyncLLM.from_vllm_config(config)
        except (ValueError, RuntimeError, OSError) as error:
            raise RuntimeError(
                f"gpt_model_path: vLLM cannot load {settings.path}: {error}"
            ) from error
        self._vocab_size: int = config.model_config.get_vocab_size()
        self.facts: dict[str, Any] = {"vocab_size": self._vocab_size}

    def check(self, ids: list[int], sampling: Sampling) -> None:
        """Raise RequestError for an id outside the vocabulary: it would end the whole engine."""
        check_prompt(ids, self._vocab_size)

    async def generate(self, key: int, ids: list[int], sampling: Sampling) -> AsyncIterator[Events]:
        """What is new of a request, as vLLM's steps bring it."""
        answer = self._llm.generate(
            {"prompt_token_ids": ids}, sampling_params(sampling), request_id=str(key)
        )
        try:
            async with contextlib.aclosing(answer):
                async for output in answer:
                    yield [_event(key, completion) for completion in output.outputs]
        except EngineDeadError as error:
            raise LibraryDied(f"vLLM's engine process is gone: {error}") from error

    def why_dead(self) -> str:
        """Why its engine process is gone; '' while it lives."""
        return f"vLLM's engine process is gone: {self._llm.dead_error}" if self._llm.errored else ""

    def close(self) -> None:
        """End the library's processes."""
        self._llm.shutdown()


def engine_arguments(settings: EngineSettings) -> AsyncEngineArgs:
    """The library's arguments: the settings, then what `engine.yaml` adds.

    Raises ValueError for one that the library does not have, or that is set elsewhere.
    """
    arguments: dict[str, Any] = {
        "model": str(settings.path),
        "skip_tokenizer_init": True,
        "dtype": settings.dtype or declared_dtype(settings.path),
        "max_num_seqs": settings.max_batch_size,
        "enable_prefix_caching": settings.enable_kv_cache_reuse,
    }
    if settings.max_seq_len:
        arguments["max_model_len"] = settings.max_seq_len
    if settings.kv_cache_free_gpu_mem_fraction:
        arguments["gpu_memory_utilization"] = settings.kv_cache_free_gpu_mem_fraction
    arguments |= parallel_arguments(settings, Topology.read())
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    added = read_arguments(settings.path / ARGUMENTS_FILE, known, OURS, "vLLM")
    return AsyncEngineArgs(**arguments | added)


def run_workers(settings: EngineSettings) -> None:
    """Run the workers of a host above the first until they end: what `vllm serve --headless` does.

    Raises what keeps them from starting.
    """
    config = engine_arguments(settings).create_engine_config(headless=True)
    share_cores(settings, Topology.read())
    executor = MultiprocExecutor(config, monitor_workers=False)
    executor.start_worker_monitor(inline=True)


def _size_cache(config: Any, settings: EngineSettings) -> None:
    """As many blocks as `max_tokens_in_paged_kv_cache` asks for, in whole blocks."""
    if settings.max_tokens_in_paged_kv_cache:
        block = config.cache_config.block_size
        blocks = -(-settings.max_tokens_in_paged_kv_cache // block)
        config.cache_config.num_gpu_blocks_override = blocks


def sampling_params(sampling: Sampling) -> SamplingParams:
    """The library's settings of one request."""
    drawn = sampling.sample
    return SamplingParams(
        n=sampling.num_return_sequences,
        max_tokens=sampling.max_tokens,
        min_tokens=sampling.min_tokens if sampling.end_ids else 0,
        temperature=sampling.temperature if drawn else 0.0,
        top_k=sampling.top_k if drawn else 0,
        top_p=sampling.top_p if drawn and sampling.top_p > 0 else 1.0,
        seed=sampling.seed if drawn else None,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        stop_token_ids=list(sampling.end_ids),
        ignore_eos=True,  # the model's own ends count if they were sent
        logprobs=0 if sampling.log_probs else None,  # of the chosen token
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def _event(key: int, completion: Any) -> Progress | Failure:
    """What one sequence got; `token_ids` end with the id that ended it."""
    ids = list(completion.token_ids)
    if completion.finish_reason == "error":
        return Failure(key, "the engine failed this request; send it again")
    finish = FINISH[completion.finish_reason] if completion.finish_reason else None
    log_probs = [
        float(at[token].logprob) for token, at in zip(ids, completion.logprobs or (), strict=False)
    ]
    return Progress(
        key, completion.index, ids, finish, log_probs, completion.cumulative_logprob or 0.0
    )
