# SPDX-License-Identifier: Apache-2.0
"""What an engine is loaded with, of its model's parameters and of what the launcher said."""

import os

from trellis.contract.lora_adapters import parse_adapters
from trellis.engine_host.engines.engine import EngineSettings
from trellis.engine_host.engines.gpus import choose_gpus
from trellis.engine_host.engines.topology import Topology
from trellis.pipeline.model_settings import ConfigError, ModelSettings


def read_engine_settings(settings: ModelSettings) -> EngineSettings:
    """Raises ConfigError for a parameter that cannot be."""
    try:
        tensor, pipeline = Topology.read().sizes(
            settings.integer("tensor_parallel_size"), settings.integer("pipeline_parallel_size")
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return EngineSettings(
        path=settings.path("gpt_model_path", "."),
        max_batch_size=settings.max_batch_size,
        max_seq_len=settings.integer("max_seq_len"),
        max_tokens_in_paged_kv_cache=settings.integer("max_tokens_in_paged_kv_cache"),
        max_attention_window_size=settings.integer("max_attention_window_size"),
        enable_kv_cache_reuse=settings.flag("enable_kv_cache_reuse", True),
        kv_cache_free_gpu_mem_fraction=settings.number("kv_cache_free_gpu_mem_fraction"),
        dtype=settings.text("dtype", ""),
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        lora_adapters=_adapters(settings),
        prompt_lookup=settings.integer("prompt_lookup"),
        draft_engine=_folder(settings, "draft_engine"),
        tokenizer=settings.path("tokenizer_dir", "tokenizer"),
    )


def _adapters(settings: ModelSettings) -> dict[str, str]:
    """The folders of the LoRA adapters by name. Raises ConfigError."""
    try:
        named = parse_adapters(settings.text("lora_adapters", ""))
    except ValueError as error:
        raise ConfigError(f"{settings.name}: parameter {error}") from None
    return {name: str(settings.folder / folder) for name, folder in named.items()}


def _folder(settings: ModelSettings, name: str) -> str:
    """A folder of the repository that a parameter names; '' for none."""
    named = settings.text(name, "")
    return str(settings.folder / named) if named else ""


def show_gpus(settings: ModelSettings) -> None:
    """Leave visible what `gpu_device_ids` names; before anything of CUDA is touched."""
    gpus = choose_gpus(settings.text("gpu_device_ids", ""), os.environ)
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
