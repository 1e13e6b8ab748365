# SPDX-License-Identifier: Apache-2.0
"""GPUs, or a CPU's memory, that several models of one repository share.

Each model alone is looked at by `gpus` and `checkpoint_gpus`. Here the memory of all is summed on
each GPU. Nobody knows in which order engines load, so each has to fit when it comes last:

- vLLM takes a share of all memory, and does not start where less is free.
- The LLM API and the C++ backend take their weights, and a share of what these leave.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from pathlib import Path

import psutil

from trellis.engine_files.checkpoint import CheckpointError
from trellis.engine_files.engine_config import EngineConfig
from trellis.preflight.check import Check
from trellis.preflight.checkpoint_gpus import CPU_CACHE, cpu_cache_gib, estimable
from trellis.preflight.gpus import DEFAULT_FRACTION, FRACTION, Gpu, engine_estimate, visible_gpus
from trellis.preflight.library import LIBRARIES, find_library
from trellis.preflight.memory import GIB
from trellis.preflight.memory import kv_bytes_per_token as engine_bytes_per_token
from trellis.preflight.repository import Repository, RepositoryError, read_repository
from trellis.preflight.served_checkpoint import ServedCheckpoint, read_served
from trellis.preflight.vllm_memory import (
    RESERVED_BYTES,
    estimate_cpu,
    estimate_gpu,
    kv_bytes_per_token,
    utilization,
)

Here = Callable[[int], int]  # how many of so many ranks run on this host

MOST_ORDERS = 5040  # all of seven models


@dataclass(frozen=True)
class Claim:
    """What a model takes of each GPU that it uses. Bytes."""

    model: str
    gpus: tuple[Gpu, ...]
    of_all: bool  # whether the share is of all memory, as vLLM's, or of what is free then
    share: float
    fixed: float  # without the KV cache
    most_cache: float = math.inf

    def needs(self, gpu: Gpu) -> float:
        """What must be free when it loads."""
        return max(self.share * usable(gpu), self.takes(gpu, 0)) if self.of_all else self.fixed

    def takes(self, gpu: Gpu, room: float) -> float:
        """What it holds once it is loaded, where so much was free."""
        all_of_it = self.share * usable(gpu) if self.of_all else room
        share = 1.0 if self.of_all else self.share
        return self.fixed + min(max(share * (all_of_it - self.fixed), 0.0), self.most_cache)

    def fair_share(self, gpu: Gpu, room: float, cache: float) -> float:
        """The share with which its cache has so many bytes, in whatever order models load."""
        share = (self.fixed + cache) / usable(gpu) if self.of_all else cache / (room - self.fixed)
        return math.floor(100 * share) / 100


def usable(gpu: Gpu) -> float:
    """What CUDA counts as all memory of a GPU, in bytes."""
    return gpu.total - RESERVED_BYTES


def check_together(
    model_repo: Path, names: Sequence[str], python: str, world_size: int, here: Here
) -> Iterator[Check]:
    """Whether models that share a GPU, or a CPU's memory, fit there together.

    Nothing for a model that cannot be read: its own checks say so.
    """
    claims: list[Claim] = []
    on_cpu: dict[str, float] = {}
    for name in names:
        try:
            repository = read_repository(model_repo, python, name)
            claim = _claim(repository, world_size, here)
        except (RepositoryError, CheckpointError, ValueError):
            continue
        if isinstance(claim, Claim):
            claims.append(claim)
        elif claim:
            on_cpu[name] = claim
    yield from check_claims(claims)
    yield from _on_cpu(on_cpu)


def _claim(repository: Repository, world_size: int, here: Here) -> Claim | float:
    """Of the GPUs; of a CPU's memory in bytes, 0 for an engine of which it is not known."""
    if repository.engine is not None:
        return _cpp_claim(repository, repository.engine, here(repository.engine.world_size))
    engine_type = repository.parameter("tensorrt_llm", "engine_type")
    if engine_type not in LIBRARIES:
        return 0.0
    served = read_served(repository, world_size)
    if find_library(repository.python, engine_type).for_cpus:
        return served.gpus * estimate_cpu(served, cpu_cache_gib()).held if estimable(served) else 0
    count = here(world_size) if world_size > 1 else served.gpus
    return _checkpoint_claim(repository, served, _gpus(repository, count), engine_type == "vllm")


def _gpus(repository: Repository, count: int) -> tuple[Gpu, ...]:
    ids = repository.parameter("tensorrt_llm", "gpu_device_ids").replace("\\", "")
    return tuple(visible_gpus(ids)[:count])


def _cpp_claim(repository: Repository, engine: EngineConfig, count: int) -> Claim:
    estimate, fraction, most = engine_estimate(repository, engine, 0.0)
    cap = math.inf if most is None else most * engine_bytes_per_token(engine)
    fixed = estimate.weights + estimate.activations
    return Claim(repository.name, _gpus(repository, count), False, fraction, fixed, cap)


def _checkpoint_claim(
    repository: Repository, served: ServedCheckpoint, gpus: tuple[Gpu, ...], of_all: bool
) -> Claim:
    weights = served.checkpoint.weight_bytes(served.tensor, served.pipeline, served.dtype)
    most = served.settings.get("max_tokens_in_paged_kv_cache")
    if not of_all:
        share = served.settings.get(FRACTION) or DEFAULT_FRACTION
        cap = most * kv_bytes_per_token(served) if most and estimable(served) else math.inf
        return Claim(repository.name, gpus, False, share, weights, cap)
    share, cap = utilization(served), math.inf
    if gpus and estimable(served):
        estimate = estimate_gpu(served, gpus[0].total)
        weights += estimate.overhead
        cap = estimate.kv_cache if most else cap
    return Claim(repository.name, gpus, True, share, weights, cap)


def check_claims(claims: Sequence[Claim]) -> Iterator[Check]:
    """One check: of the first GPU where they do not fit, else of the first that is shared.

    Nothing if there is no such GPU.
    """
    gpus = sorted({gpu for claim in claims for gpu in claim.gpus}, key=lambda gpu: gpu.number)
    shared = [(gpu, on) for gpu in gpus if len(on := [c for c in claims if gpu in c.gpus]) > 1]
    if not shared:
        return
    wrong = [(gpu, on) for gpu, on in shared if _wrong_order(gpu, on)]
    gpu, on = (wrong or shared)[0]
    room, parts = _room(gpu), []
    for claim in _wrong_order(gpu, on) or on:
        taken = max(claim.needs(gpu), claim.takes(gpu, room))
        room -= taken
        parts.append(f"{claim.model} {taken / GIB:.2f}")
    yield Check(
        "GPU memory of all models",
        f"GPU {gpu.number}: {(gpu.total - gpu.used) / GIB:.2f} GiB free",
        f"{' + '.join(parts)} GiB, loaded in this order (estimated)",
        not wrong,
        _remedy(wrong) if wrong else "",
    )


def _room(gpu: Gpu) -> float:
    """Bytes that are free for models."""
    return usable(gpu) - gpu.used


def _wrong_order(gpu: Gpu, on: Sequence[Claim]) -> Sequence[Claim]:
    """An order in which one of the models does not find what it needs, up to that one."""
    for order in islice(permutations(on), MOST_ORDERS):
        room = _room(gpu)
        for number, claim in enumerate(order):
            if claim.needs(gpu) > room:
                return order[: number + 1]
            room -= claim.takes(gpu, room)
    return ()


def _remedy(wrong: Sequence[tuple[Gpu, Sequence[Claim]]]) -> str:
    """Shares with which each model has its weights, and an equal part of what these leave."""
    own = "give them GPUs of their own (SET=gpu_device_ids:N)"
    shares: dict[str, float] = {}
    for gpu, on in wrong:
        room = _room(gpu)
        cache = (room - sum(claim.fixed for claim in on)) / len(on)
        if cache <= 0:
            names = " and ".join(claim.model for claim in on)
            return f"{names} do not fit on GPU {gpu.number} together: {own}, or more of them (TP=)"
        for claim in on:
            share = claim.fair_share(gpu, room, cache)
            shares[claim.model] = min(share, shares.get(claim.model, 1.0))
    said = " and ".join(f"{share:g} for {model}" for model, share in shares.items())
    return f"set {FRACTION} to {said} (`make repo NAME=... SET={FRACTION}:N`), or {own}"


def _on_cpu(held: dict[str, float]) -> Iterator[Check]:
    """The weights and caches of all."""
    if len(held) < 2:
        return
    free = psutil.virtual_memory().available
    parts = " + ".join(f"{model} {held[model] / GIB:.2f}" for model in held)
    remedy = ""
    if sum(held.values()) > free:
        remedy = f"fewer or smaller models, or smaller caches ({CPU_CACHE}, GiB for each process)"
    found = f"{free / GIB:.2f} GiB free"
    yield Check("memory of all models", found, f"{parts} GiB (estimated)", not remedy, remedy)
