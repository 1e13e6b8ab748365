# SPDX-License-Identifier: Apache-2.0
"""The LoRA adapters that an engine was made with, as its library is told of them."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trellis.engine_host.engines.engine import EngineSettings

PEFT_ALPHA = 8  # where the file does not say
IN_A_BATCH = 8  # adapters, at most; each takes memory of the GPU


@dataclass(frozen=True)
class Adapter:
    """One adapter; libraries know it by its number, which begins at 1."""

    name: str
    number: int
    folder: str
    rank: int
    modules: frozenset[str]  # q_proj ..., that it changes
    scale: float = 1.0  # of what it adds to a weight

    @property
    def weights(self) -> Path:
        """The file of its matrices."""
        return Path(self.folder) / "adapter_model.safetensors"


def read_adapters(settings: EngineSettings) -> dict[str, Adapter]:
    """The adapters by name. Raises RuntimeError for a folder that cannot be read."""
    adapters = {}
    for number, (name, folder) in enumerate(settings.lora_adapters.items(), start=1):
        try:
            config = json.loads((Path(folder) / "adapter_config.json").read_text())
            rank = max(config["r"], *config.get("rank_pattern", {}).values(), 1)
            modules = frozenset(config["target_modules"])
            scale = _scale(config)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RuntimeError(f"lora_adapters: {name}: cannot read {folder}: {error}") from error
        adapters[name] = Adapter(name, number, folder, int(rank), modules, scale)
    return adapters


def _scale(config: dict[str, Any]) -> float:
    """As PEFT scales."""
    rank = config["r"]
    divisor = math.sqrt(rank) if config.get("use_rslora") else rank
    return float(config.get("lora_alpha", PEFT_ALPHA) / divisor)


def largest_rank(adapters: dict[str, Adapter]) -> int:
    """Of all of them, which libraries reserve for each."""
    return max(adapter.rank for adapter in adapters.values())
