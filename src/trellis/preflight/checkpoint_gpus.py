# SPDX-License-Identifier: Apache-2.0
"""A checkpoint behind vLLM or the LLM API: how it is split, and the memory that it takes."""

import os
from collections.abc import Iterator, Sequence

import psutil

from trellis.engine_files.checkpoint import CheckpointError
from trellis.engine_files.parallel import ParallelError, check_parallel, fitting
from trellis.preflight.check import Check
from trellis.preflight.gpus import FRACTION, Gpu, count_gpus, visible_gpus
from trellis.preflight.library import Installed
from trellis.preflight.memory import GIB
from trellis.preflight.repository import Repository
from trellis.preflight.served_checkpoint import ServedCheckpoint, read_served
from trellis.preflight.vllm_memory import (
    RESERVED_BYTES,
    VllmMemory,
    estimate_cpu,
    estimate_gpu,
    kv_bytes_per_token,
    utilization,
)

COPY_ALL = "copy the whole checkpoint, then `make repo`"
CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE"
CPU_CACHE_GIB = 1  # the engine's own default


def check_split(repository: Repository, asked: int) -> Check:
    """The world size is tensor x pipeline parallel, and the checkpoint can be split so."""
    try:
        served = read_served(repository, asked)
    except CheckpointError as error:
        return Check("world size", str(error), "a readable checkpoint", False, COPY_ALL)
    found = f"{asked} (TP {served.tensor} x PP {served.pipeline})"
    config, whole = served.checkpoint.config, served.expert_parallel
    pairs = fitting(config, max(asked, served.gpus, 8), expert_parallel=whole)
    needed = f"TP of {', '.join(str(n) for n in sorted({tensor for tensor, _ in pairs}))}"
    try:
        check_parallel(config, served.tensor, served.pipeline, expert_parallel=whole)
    except ParallelError as error:
        return Check("world size", found, needed, False, f"{error}")
    if asked not in (1, served.gpus):
        remedy = f"launch with --world_size {served.gpus} (WORLD_SIZE={served.gpus})"
        return Check("world size", found, str(served.gpus), False, remedy)
    return Check("world size", found, needed, True)


def check_checkpoint_memory(
    repository: Repository,
    engine_type: str,
    asked: int,
    here: int,
    installed: Installed,
) -> Iterator[Check]:
    """GPUs enough, and room on the fullest of them; or in this machine's memory.

    Args:
        here: how many of the `asked` ranks are this host's.
        installed: the library; where it is not here, a machine without GPUs is no fault.
    """
    ids = repository.parameter("tensorrt_llm", "gpu_device_ids").replace("\\", "")
    gpus = visible_gpus(ids)
    try:
        served = read_served(repository, asked)
        if installed.for_cpus:
            yield _cpu_build(gpus)
            yield from _cpu_memory(served)
        elif gpus:
            yield from _gpus(served, engine_type, gpus, here if asked > 1 else served.gpus, asked)
        elif installed.there:
            yield _no_gpu(engine_type, served)
    except CheckpointError as error:
        yield Check("memory", str(error), "readable weights", False, COPY_ALL)


def _cpu_build(gpus: Sequence[Gpu]) -> Check:
    found = f"{len(gpus)}: {gpus[0].name}" if gpus else "none (nvidia-smi)"
    unused = "this is vLLM's build for CPUs: `make setup-vllm VLLM=vllm==0.24.0` uses the GPU"
    return Check("GPUs", found, "none: the engine runs on the CPU", True, unused if gpus else "")


def _no_gpu(engine_type: str, served: ServedCheckpoint) -> Check:
    remedy = "serve on a machine with that many"
    if engine_type == "vllm":
        remedy += ", or on this CPU: `make clean-venv setup-vllm PYTHON=python3.11`"
    return Check("GPUs", "none (nvidia-smi)", f"{served.gpus}", False, remedy)


def _gpus(
    served: ServedCheckpoint, engine_type: str, gpus: Sequence[Gpu], here: int, asked: int
) -> Iterator[Check]:
    remedy = f"launch with --world_size {len(gpus)} or fewer (TP=), or set gpu_device_ids"
    counted = count_gpus(gpus, here, max(asked, served.gpus), remedy)
    yield counted
    if not here or not counted.ok:
        return
    fullest = max(gpus[:here], key=lambda gpu: gpu.used)
    free = fullest.total - fullest.used
    if engine_type != "vllm":
        yield _weights_fit(served, free)
    elif not estimable(served):
        yield _not_estimated(f"{free / GIB:.2f} GiB free")
    else:
        estimate = estimate_gpu(served, fullest.total)
        remedy = _gpu_remedy(served, estimate, fullest)
        needed = describe(estimate, utilization(served), fullest.total)
        yield Check("GPU memory", f"{free / GIB:.2f} GiB free", needed, not remedy, remedy)


def describe(estimate: VllmMemory, share: float, total: float) -> str:
    """An estimate in a line: its parts, and how many tokens the cache holds."""
    whole = estimate.kv_cache == estimate.room
    of = f", {share:g} of {total / GIB:.2f}" if whole else f" of {total / GIB:.2f}"
    return (
        f"weights {estimate.weights / GIB:.2f} + activations, graphs and runtime"
        f" {estimate.overhead / GIB:.2f} + KV cache {estimate.kv_cache / GIB:.2f}"
        f" ({estimate.kv_tokens} tokens of {estimate.token_bytes / 1024:.0f} KiB)"
        f" = {estimate.held / GIB:.2f} GiB{of} (estimated)"
    )


def _gpu_remedy(served: ServedCheckpoint, estimate: VllmMemory, gpu: Gpu) -> str:
    """What to change, '' where it fits."""
    share, usable = utilization(served), gpu.total - RESERVED_BYTES
    fraction = f"{FRACTION} ({share:g})"
    if not estimate.fitting_tokens:
        if share < 0.8:
            return f"no room for a KV cache: raise {fraction}"
        narrow = "" if served.checkpoint.width(served.dtype) <= 2 else ", dtype:bfloat16"
        return (
            "the weights leave no room for a KV cache: a larger GPU, more GPUs than"
            f" {served.gpus} (TP=){narrow}"
        )
    room = usable - gpu.used
    if share * usable > room:
        lower = int(100 * room / usable) / 100
        return (
            f"vLLM wants {share * usable / GIB:.2f} GiB free at its start: lower {fraction} to"
            f" {lower:g}, or end what else uses the GPU"
        )
    if estimate.kv_tokens > estimate.fitting_tokens:
        most = served.settings["max_tokens_in_paged_kv_cache"]
        return (
            f"lower max_tokens_in_paged_kv_cache ({most}) to {estimate.fitting_tokens}, or raise"
            f" {fraction}"
        )
    return _one_request(served, estimate, f"raise {fraction}")


def _one_request(served: ServedCheckpoint, estimate: VllmMemory, more: str) -> str:
    """vLLM does not start where the cache is too small for one request of full length."""
    longest = _longest(served)
    if estimate.request_tokens >= longest:
        return ""
    asked = served.settings.get("max_tokens_in_paged_kv_cache")
    if asked and estimate.fitting_tokens >= longest + estimate.block_tokens:
        more = f"raise max_tokens_in_paged_kv_cache ({asked})"
    return (
        f"the KV cache is too small for one request of {longest} tokens: {more}, or"
        f" SET=max_seq_len:{max(estimate.request_tokens, 1)}"
    )


def _longest(served: ServedCheckpoint) -> int:
    said = served.settings.get("max_seq_len") or served.checkpoint.config.max_position_embeddings
    return int(said or 1)


def cpu_cache_gib() -> int:
    """What the cache of each process on a CPU has, in GiB."""
    text = os.environ.get(CPU_CACHE, "")
    return int(text) if text.isdigit() and int(text) else CPU_CACHE_GIB


def _cpu_memory(served: ServedCheckpoint) -> Iterator[Check]:
    """Weights and cache of every process fit in what is free."""
    free = psutil.virtual_memory().available
    found = f"{free / GIB:.2f} GiB free"
    if not estimable(served):
        yield _not_estimated(found)
        return
    space = cpu_cache_gib()
    estimate = estimate_cpu(served, space)
    needed = (
        f"weights {estimate.weights / GIB:.2f} + KV cache {estimate.kv_cache / GIB:.2f}"
        f" ({estimate.kv_tokens} tokens of {estimate.token_bytes / 1024:.0f} KiB) GiB"
        f"{f', {served.gpus} times' if served.gpus > 1 else ''} (estimated)"
    )
    if served.gpus * estimate.held > free:
        remedy = f"a smaller model or cache ({CPU_CACHE}={space} GiB, for each process)"
    else:
        tokens = _longest(served) + estimate.block_tokens
        wider = -(-tokens * estimate.token_bytes // GIB)
        remedy = _one_request(served, estimate, f"set {CPU_CACHE}={wider:.0f} (GiB)")
    yield Check("memory", found, needed, not remedy, remedy)


def _weights_fit(served: ServedCheckpoint, free: float) -> Check:
    """The LLM API lays out its cache in what the weights leave."""
    weights = served.checkpoint.weight_bytes(served.tensor, served.pipeline, served.dtype)
    remedy = "" if weights < free else f"more GPUs than {served.gpus} (TP=), or a larger one"
    needed = f"weights {weights / GIB:.2f} GiB, and room for activations and KV cache"
    return Check("GPU memory", f"{free / GIB:.2f} GiB free", needed, not remedy, remedy)


def estimable(served: ServedCheckpoint) -> bool:
    """Whether config.json gives the sizes that an estimate takes."""
    return served.checkpoint.config.num_hidden_layers is not None and kv_bytes_per_token(served) > 0


def _not_estimated(found: str) -> Check:
    return Check("memory", found, "not estimated: config.json does not give the sizes", True)
