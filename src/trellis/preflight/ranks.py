# SPDX-License-Identifier: Apache-2.0
"""The engine's files: one for every rank, none empty, no link that leads nowhere."""

from trellis.engine_files.engine_config import EngineConfigError, missing_ranks, rank_bytes
from trellis.preflight.check import Check
from trellis.preflight.repository import Repository

PYTHON_ENGINE_FILES = ("*.gguf", "*openvino*model*.xml", "*.safetensors")


def check_ranks(repository: Repository) -> Check:
    """Every rank of TensorRT-LLM's engine, or any model file of another."""
    folder = repository.engine_folder
    engine = repository.engine
    remedy = "build or copy what is missing, then `make repo`"
    if engine is None:
        files = [file.name for kind in PYTHON_ENGINE_FILES for file in folder.glob(kind)]
        found = ", ".join(files[:3]) or "none"
        return Check("engine files", found, "a model file", bool(files), "" if files else remedy)
    needed = f"{engine.world_size} (one a rank)"
    try:
        missing = missing_ranks(folder, engine.world_size, engine.tensor_parallel)
    except EngineConfigError as error:
        return Check("engine files", str(error), needed, False, "remove the other build's files")
    if missing:
        ranks = ", ".join(map(str, missing))
        return Check("engine files", f"none or empty for rank {ranks}", needed, False, remedy)
    size = sum(rank_bytes(folder, engine.tensor_parallel).values()) / 2**30
    return Check("engine files", f"{engine.world_size}, {size:.2f} GiB in all", needed, True)
