# SPDX-License-Identifier: Apache-2.0
"""GPUs: which there are; for an engine of TensorRT-LLM one a rank, with memory for all it holds."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trellis.engine_files.engine_config import EngineConfig, rank_bytes
from trellis.preflight.check import Check
from trellis.preflight.memory import GIB, MemoryEstimate, estimate_memory
from trellis.preflight.repository import Repository

QUERY = ("--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits")
FRACTION = "kv_cache_free_gpu_mem_fraction"
DEFAULT_FRACTION = 0.9  # of TensorRT-LLM


@dataclass(frozen=True)
class Gpu:
    """One GPU. Bytes."""

    name: str
    total: float
    used: float
    number: int = 0  # nvidia-smi's


def find_gpus() -> list[Gpu]:
    """What nvidia-smi reports; none where it is missing or fails."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        done = subprocess.run(
            [command, *QUERY], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    lines = enumerate(done.stdout.splitlines())
    return [gpu for number, line in lines if (gpu := _read_line(line, number)) is not None]


def _read_line(line: str, number: int) -> Gpu | None:
    """`NVIDIA H100 80GB HBM3, 81559, 4` (MiB); None for a GPU that does not say its memory."""
    try:
        name, total, used = (part.strip() for part in line.rsplit(",", 2))
        return Gpu(name, float(total) * 2**20, float(used) * 2**20, number)
    except ValueError:
        return None


def visible_gpus(gpu_device_ids: str, environ: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves, and of these the ones that are to be used.

    Names other than numbers (`GPU-5a...`) leave as many GPUs, it is not looked up which.
    """
    gpus = find_gpus()
    for numbers in (environ.get("CUDA_VISIBLE_DEVICES", ""), gpu_device_ids):
        if numbers:
            names = [name.strip() for name in numbers.split(",")]
            chosen = [int(name) if name.isdigit() else i for i, name in enumerate(names)]
            gpus = [gpus[number] for number in chosen if number < len(gpus)]
    return gpus


def check_gpus(repository: Repository, engine: EngineConfig, here: int) -> Iterator[Check]:
    """One GPU for each rank of this host, `here`, then the memory of the fullest of them."""
    gpus = find_gpus()
    yield count_gpus(
        gpus,
        here,
        engine.world_size,
        "serve on a machine with that many, or build for fewer ranks",
    )
    if not here:
        return
    fullest = max(gpus[:here], key=lambda gpu: gpu.used, default=None)
    free = fullest.total - fullest.used if fullest else 0.0
    estimate, fraction, _ = engine_estimate(repository, engine, free)
    yield check_memory(engine, estimate, free if fullest else None, fraction)


def engine_estimate(
    repository: Repository, engine: EngineConfig, free: float
) -> tuple[MemoryEstimate, float, int | None]:
    """What an engine would hold on a GPU with `free` bytes.

    And its share of free memory for the KV cache, and the most tokens in it, if they are limited.
    """
    fraction = float(repository.parameter("tensorrt_llm", FRACTION) or DEFAULT_FRACTION)
    text = repository.parameter("tensorrt_llm", "max_tokens_in_paged_kv_cache")
    most = int(text) if text else None
    weights = max(
        rank_bytes(repository.engine_folder, engine.tensor_parallel).values(), default=0.0
    )
    return estimate_memory(engine, weights, free, fraction, most), fraction, most


def count_gpus(gpus: Sequence[Gpu], here: int, world_size: int, remedy: str) -> Check:
    """As many as ranks run here, `here` of `world_size`; `remedy` is for where all of them do."""
    found = ", ".join(dict.fromkeys(gpu.name for gpu in gpus)) or "none (nvidia-smi)"
    needed = f"{here}, one a rank" if here else "none: no rank runs here"
    if 0 < here < world_size:
        needed += f" of this host ({world_size} in all)"
        remedy = "give this host more GPUs, or fewer of the ranks"
    enough = len(gpus) >= here
    return Check(
        "GPUs",
        f"{len(gpus)}: {found}" if gpus else found,
        needed,
        enough,
        "" if enough else remedy,
    )


def check_memory(
    engine: EngineConfig, estimate: MemoryEstimate, free: float | None, fraction: float
) -> Check:
    """Whether it fits, with room in the KV cache for one request of full length."""
    fixed = estimate.weights + estimate.activations
    parts = (
        f"weights {estimate.weights / GIB:.2f} + activations {estimate.activations / GIB:.2f}"
        f" + KV cache {estimate.kv_cache / GIB:.2f} ({estimate.kv_tokens} tokens)"
        f" = {estimate.held / GIB:.2f} GiB"
    )
    if free is None:
        needed = f"more than {fixed / GIB:.2f} GiB (estimated)"
        return Check("GPU memory", "unknown", needed, False, "serve on a machine with a GPU")
    found = f"{free / GIB:.2f} GiB free"
    if fixed > free:
        remedy = "a larger GPU, more tensor parallelism, or smaller max_batch_size/max_input_len"
        return Check("GPU memory", found, f"{parts} (estimated)", False, remedy)
    if estimate.kv_tokens < engine.max_seq_len:
        remedy = (
            f"the KV cache is too small for one request of {engine.max_seq_len} tokens: raise"
            f" {FRACTION} ({fraction:g}) or max_tokens_in_paged_kv_cache"
        )
        return Check("GPU memory", found, f"{parts} (estimated)", False, remedy)
    return Check("GPU memory", found, f"{parts} (estimated)", True)
