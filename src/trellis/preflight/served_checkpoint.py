# SPDX-License-Identifier: Apache-2.0
"""A checkpoint as a repository serves it: what is set in the repository and in `engine.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trellis.engine_files.checkpoint import Checkpoint, read_checkpoint
from trellis.engine_host.engines.engine_arguments import given_arguments
from trellis.preflight.repository import Repository
from trellis.repository.model_config import parameters

# Parameters of `tensorrt_llm` that an engine is loaded with, under the same name, as their types.
INTEGERS = (
    "max_seq_len",
    "max_tokens_in_paged_kv_cache",
    "max_attention_window_size",
    "tensor_parallel_size",
    "pipeline_parallel_size",
)
NUMBERS = ("kv_cache_free_gpu_mem_fraction",)
FLAGS = ("enable_kv_cache_reuse",)
TEXTS = ("dtype",)


@dataclass(frozen=True)
class ServedCheckpoint:
    """The files, the settings by the names of EngineSettings, and the library's own arguments."""

    checkpoint: Checkpoint
    tensor: int
    pipeline: int
    settings: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of engine.yaml

    @property
    def gpus(self) -> int:
        """How many it takes: tensor times pipeline parallel."""
        return self.tensor * self.pipeline

    @property
    def dtype(self) -> str:
        """Of the weights, '' for the checkpoint's own."""
        return str(self.settings.get("dtype") or "")

    @property
    def expert_parallel(self) -> bool:
        """Whether experts are dealt out whole."""
        return bool(self.arguments.get("enable_expert_parallel"))

    def size(self, name: str, default: float) -> float:
        """A number of engine.yaml. What the library would reject there counts as not said."""
        value = self.arguments.get(name)
        return value if isinstance(value, (int, float)) and value > 0 else default


def read_served(repository: Repository, asked: int) -> ServedCheckpoint:
    """What a world size of `asked` would serve. Raises CheckpointError for unreadable files."""
    settings, arguments = engine_values(repository), given_arguments(repository.engine_folder)

    def parallel(name: str) -> int:
        value = settings.get(name) or arguments.get(name)
        return value if isinstance(value, int) and value > 0 else 0

    pipeline = parallel("pipeline_parallel_size") or 1
    tensor = parallel("tensor_parallel_size") or max(asked // pipeline, 1)
    checkpoint = read_checkpoint(repository.engine_folder)
    return ServedCheckpoint(checkpoint, tensor, pipeline, settings, arguments)


def engine_values(repository: Repository) -> dict[str, Any]:
    """What `tensorrt_llm` would load the engine with, by the names of EngineSettings."""
    config = repository.configs["tensorrt_llm"]
    said = {name: value for name, value in parameters(config).items() if value}
    values: dict[str, Any] = {"max_batch_size": max(config.max_batch_size, 1)}
    values |= {name: int(said[name]) for name in INTEGERS if said.get(name, "").isdigit()}
    values |= {name: float(said[name]) for name in NUMBERS if name in said}
    values |= {name: said[name].lower() in ("true", "1") for name in FLAGS if name in said}
    return values | {name: said[name] for name in TEXTS if name in said}
