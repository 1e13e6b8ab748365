# SPDX-License-Identifier: Apache-2.0
"""Python engines: ranks, one but for a Hugging Face checkpoint, which is split by heads; its GPUs.

Without a GPU a checkpoint runs on the CPU, so none is needed; where there are some, each rank takes
one of them.
"""

from collections.abc import Iterator

from trellis.engine_files.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from trellis.preflight.check import Check
from trellis.preflight.checkpoint_memory import CacheOptions, CheckpointMemory, estimate_checkpoint
from trellis.preflight.gpus import DEFAULT_FRACTION, Gpu, count_gpus, visible_gpus
from trellis.preflight.memory import GIB
from trellis.preflight.repository import Repository
from trellis.preflight.world_size import check_world_size

CHECKPOINT_ENGINE = "transformers"
COPY_ALL = "copy the whole checkpoint, then `make repo`"


def check_python_ranks(repository: Repository, asked: int) -> Check:
    """The world size divides the heads of a checkpoint; any other Python engine has one rank."""
    if repository.parameter("tensorrt_llm", "engine_type") != CHECKPOINT_ENGINE:
        return check_world_size(1, 1, asked)
    try:
        checkpoint = read_checkpoint(repository.engine_folder)
    except CheckpointError as error:
        return Check("world size", str(error), "a readable checkpoint", False, COPY_ALL)
    heads, shared = checkpoint.attention_heads or 1, checkpoint.key_value_heads or 1
    sizes = [size for size in range(1, shared + 1) if heads % size == 0 and shared % size == 0]
    return Check(
        "world size",
        f"{asked} for {heads} attention heads and {shared} key/value heads",
        f"a divisor of both: {', '.join(map(str, sizes))}",
        asked in sizes,
        "" if asked in sizes else f"launch with --world_size {' or '.join(map(str, sizes))}",
    )


def check_checkpoint_gpus(repository: Repository, asked: int, here: int) -> Iterator[Check]:
    """Where there are GPUs: one for each rank of this host, with enough memory on the fullest.

    `here` of the `asked` ranks are this host's.
    """
    if repository.parameter("tensorrt_llm", "engine_type") != CHECKPOINT_ENGINE:
        return
    ids = repository.parameter("tensorrt_llm", "gpu_device_ids").replace("\\", "")
    gpus = visible_gpus(ids)
    if not gpus:
        yield Check("GPUs", "none (nvidia-smi)", "none: the engine runs on the CPU then", True)
        return
    remedy = f"launch with --world_size {len(gpus)} or fewer, or set gpu_device_ids"
    yield count_gpus(gpus, here, asked, remedy)
    if not here:
        return
    try:
        yield _check_memory(repository, asked, max(gpus[:here], key=lambda gpu: gpu.used))
    except CheckpointError as error:
        yield Check("GPU memory", str(error), "readable weights", False, COPY_ALL)


def cache_options(repository: Repository) -> CacheOptions:
    """What the repository says of the KV cache."""

    def parameter(name: str) -> str:
        return repository.parameter("tensorrt_llm", name)

    most = parameter("max_tokens_in_paged_kv_cache")
    return CacheOptions(
        fraction=float(parameter("kv_cache_free_gpu_mem_fraction") or DEFAULT_FRACTION),
        max_tokens=int(most) if most else None,
        max_batch_size=max(repository.configs["tensorrt_llm"].max_batch_size, 1),
        dtype=parameter("dtype"),
        attention=parameter("attention_implementation"),
    )


def _check_memory(repository: Repository, ranks: int, gpu: Gpu) -> Check:
    checkpoint = read_checkpoint(repository.engine_folder)
    options = cache_options(repository)
    free = gpu.total - gpu.used
    estimate = estimate_checkpoint(checkpoint, ranks, free, options)
    needed = (
        f"weights {estimate.weights / GIB:.2f} + runtime {estimate.runtime / GIB:.2f}"
        f" + KV cache {estimate.kv_cache / GIB:.2f} ({estimate.kv_tokens} tokens)"
        f" = {estimate.held / GIB:.2f} GiB, a step up to {estimate.steps / GIB:.2f} more"
        " (estimated)"
    )
    remedy = _remedy(checkpoint, estimate, options, ranks, free)
    return Check("GPU memory", f"{free / GIB:.2f} GiB free", needed, not remedy, remedy)


def _remedy(
    checkpoint: Checkpoint,
    estimate: CheckpointMemory,
    options: CacheOptions,
    ranks: int,
    free: float,
) -> str:
    """What to change, '' where it fits."""
    fraction = f"kv_cache_free_gpu_mem_fraction ({options.fraction:g})"
    if estimate.weights >= free or (not estimate.fitting_tokens and options.fraction >= 0.8):
        narrow = "" if checkpoint.width(options.dtype) <= 2 else ", dtype:bfloat16"
        return (
            "the weights leave no room for a KV cache: a GPU with more free memory,"
            f" more ranks than {ranks} (--world_size){narrow}"
        )
    if not estimate.fitting_tokens:
        return f"no room for a KV cache: raise {fraction}"
    if estimate.kv_tokens > estimate.fitting_tokens:
        return (
            f"lower max_tokens_in_paged_kv_cache ({options.max_tokens}) to"
            f" {estimate.fitting_tokens}, or raise {fraction}"
        )
    return ""
