# SPDX-License-Identifier: Apache-2.0
"""Ranks: what the engine was built for, and what was asked."""

from trellis.preflight.check import Check


def check_world_size(tensor_parallel: int, pipeline_parallel: int, asked: int) -> Check:
    """World size = TP x PP."""
    built = tensor_parallel * pipeline_parallel
    needed = f"{built} (TP {tensor_parallel} x PP {pipeline_parallel})"
    remedy = "" if asked == built else f"launch with --world_size {built} (WORLD_SIZE={built})"
    return Check("world size", str(asked), needed, asked == built, remedy)
