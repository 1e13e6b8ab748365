# SPDX-License-Identifier: Apache-2.0
"""Attention heads: tensor parallelism gives every rank as many."""

from trellis.engine_files.engine_config import EngineConfig
from trellis.preflight.check import Check


def fitting_sizes(heads: int, kv_heads: int, most: int = 64) -> list[int]:
    """The TP sizes that divide the heads, and divide or repeat the key/value heads.

    >>> fitting_sizes(32, 8)
    [1, 2, 4, 8, 16, 32]
    """
    return [
        size
        for size in range(1, min(heads, most) + 1)
        if heads % size == 0 and (kv_heads % size == 0 or size % kv_heads == 0)
    ]


def check_heads(engine: EngineConfig) -> Check:
    """TP divides the heads; if not, which sizes would."""
    sizes = fitting_sizes(engine.heads, engine.kv_heads)
    found = f"TP {engine.tensor_parallel} for {engine.heads} heads, {engine.kv_heads} key/value"
    ok = engine.tensor_parallel in sizes
    needed = f"TP of {', '.join(map(str, sizes))}"
    remedy = "" if ok else "build the engine with one of these"
    return Check("attention heads", found, needed, ok, remedy)
