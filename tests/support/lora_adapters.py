"""LoRA adapters made on the spot, as PEFT writes them, and the weights that they amount to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

PREFIX = "base_model.model."
ALPHA = 16


def write_adapter(
    folder: Path, shapes: Mapping[str, tuple[int, int]], rank: int = 4, seed: int = 1, **config: Any
) -> Path:
    """An adapter of random weights for modules, by name, whose weights have these shapes."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    weights = {}
    for module, (rows, columns) in shapes.items():
        for part, shape in (("lora_A", (rank, columns)), ("lora_B", (rows, rank))):
            drawn = random.normal(0, 0.08, shape).astype(np.float32)
            weights[f"{PREFIX}{module}.{part}.weight"] = drawn
    save_file(weights, folder / "adapter_model.safetensors")
    said: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({module.rpartition(".")[2] for module in shapes}),
        "base_model_name_or_path": "base",
    }
    (folder / "adapter_config.json").write_text(json.dumps(said | config))
    return folder


def merge(checkpoint: Path, adapter: Path, folder: Path) -> Path:
    """A checkpoint with an adapter's weights added to its own: W + B A alpha / r."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text((checkpoint / "config.json").read_text())
    weights = load_file(checkpoint / "model.safetensors")
    scale = ALPHA / json.loads((adapter / "adapter_config.json").read_text())["r"]
    added = load_file(adapter / "adapter_model.safetensors")
    for name, first in added.items():
        module, is_first, _ = name.removeprefix(PREFIX).partition(".lora_A")
        if is_first:
            second = added[f"{PREFIX}{module}.lora_B.weight"]
            weights[f"{module}.weight"] = weights[f"{module}.weight"] + scale * (second @ first)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
