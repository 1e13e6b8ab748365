# SPDX-License-Identifier: Apache-2.0
"""/dev/shm: through it Triton talks to its Python models, and ranks talk to each other."""

import os
from pathlib import Path

from trellis.preflight.check import Check

FOLDER = Path("/dev/shm")
MIB = 2**20
# Triton gives each Python model 1 MiB to begin with, and more as requests need it.
PYTHON_MODELS_MIB = 32
# What one rank of several needs for NCCL's buffers, as NVIDIA's own --shm-size examples allow.
RANK_MIB = 1024


def free_bytes() -> int:
    """Room in /dev/shm."""
    stat = os.statvfs(FOLDER)
    return stat.f_bavail * stat.f_frsize


def needed_mib(world_size: int) -> int:
    """What serving on that many ranks takes, in MiB."""
    return PYTHON_MODELS_MIB + (RANK_MIB * world_size if world_size > 1 else 0)


def container_gib(world_size: int) -> int:
    """A container's --shm-size in GiB, with room to spare."""
    return max(needed_mib(world_size) // 1024 + 1, 2)


def check_shared_memory(ranks: int, free: int | None = None) -> Check:
    """Room for the Python models, and for every rank of this host where there are several."""
    needed = needed_mib(ranks)
    found = (free_bytes() if free is None else free) // MIB
    ok = found >= needed
    remedy = "" if ok else f"start the container with --shm-size={container_gib(ranks)}g"
    return Check("shared memory", f"{found} MiB free", f"{needed} MiB", ok, remedy)
