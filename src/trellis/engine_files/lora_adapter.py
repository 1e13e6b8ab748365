# SPDX-License-Identifier: Apache-2.0
"""A LoRA adapter as PEFT writes it: adapter_config.json and adapter_model.safetensors.

Checked against the checkpoint before anything is served: an adapter of another model ends the
engine of some libraries at the first request that names it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from trellis.engine_files.json_form import Form, Size, read_form
from trellis.engine_files.safetensors_headers import SafetensorsError, Tensor, read_tensors
from trellis.errors import TrellisError
from trellis.files import read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"

Shapes = Mapping[str, tuple[int, ...]]


class AdapterError(TrellisError, ValueError):
    """An adapter that cannot be served; the message names the file."""


class _Config(Form):
    peft_type: str = "LORA"
    r: Size
    rank_pattern: dict[str, Size] = Field(default_factory=dict)
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    bias: str = "none"
    use_dora: bool = False
    modules_to_save: list[str] | None = None


def check_adapter(folder: Path, base: Shapes) -> tuple[Path, Path]:
    """The two files of an adapter for a checkpoint with weights of these shapes.

    Raises AdapterError for files that are missing, or that are no LoRA adapter of this checkpoint.
    """
    config, weights = folder / CONFIG, folder / WEIGHTS
    for file in (config, weights):
        if not file.is_file():
            raise AdapterError(f"{folder}: no {file.name}; name a folder that PEFT has written")
    try:
        rank = _rank(config)
        tensors = {tensor.name: tensor for tensor in read_tensors(weights)}
    except (OSError, ValueError, SafetensorsError) as error:
        raise AdapterError(f"{folder}: {error}") from error
    _check_weights(weights, tensors, base, rank)
    return config, weights


def check_one_scale(folder: Path, engine: str) -> None:
    """Raise AdapterError for an adapter whose modules have scales of their own.

    `engine`: one that takes one scale an adapter.
    """
    file = folder / CONFIG
    try:
        config = read_form(file, _Config, read_json(file))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{folder}: {error}") from error
    for name in ("rank_pattern", "alpha_pattern"):
        if getattr(config, name):
            raise AdapterError(
                f"{file}: {name} gives modules scales of their own; this engine ({engine}) takes"
                " one an adapter"
            )


def _rank(file: Path) -> int:
    """The largest rank. Raises ValueError for what a library would leave out of the adapter."""
    config = read_form(file, _Config, read_json(file))
    others: dict[str, Any] = {
        "peft_type": "" if config.peft_type == "LORA" else config.peft_type,
        "bias": "" if config.bias == "none" else config.bias,
        "use_dora": config.use_dora,
        "modules_to_save": config.modules_to_save,
    }
    for name, value in others.items():
        if value:
            raise ValueError(f"{file.name}: {name} is {value}, which no engine serves")
    return max(config.r, *config.rank_pattern.values(), 1)


def _check_weights(file: Path, tensors: Mapping[str, Tensor], base: Shapes, rank: int) -> None:
    pairs = [name.removesuffix(A) for name in tensors if name.endswith(A)]
    if not pairs or len(tensors) != 2 * len(pairs):
        raise AdapterError(f"{file}: holds other weights than pairs of lora_A and lora_B")
    known = {_place(name): shape for name, shape in base.items()}
    modules = {name.rpartition(".")[0] for name in known}
    for pair in pairs:
        if pair + B not in tensors:
            raise AdapterError(f"{file}: {pair} has lora_A and no lora_B")
        first, second = tensors[pair + A].shape, tensors[pair + B].shape
        module = _place(pair)
        if module not in modules:
            raise AdapterError(
                f"{file}: {pair} is no part of this checkpoint; it is another model's"
            )
        whole = known.get(f"{module}.weight")  # none where it is quantized
        fits = len(first) == len(second) == 2 and first[0] == second[1] <= rank
        if not fits or whole not in (None, (second[0], first[1])):
            raise AdapterError(
                f"{file}: {pair} has lora_A {list(first)} and lora_B {list(second)}, which do not"
                f" fit rank {rank} and a weight of {list(whole or ())}; it is another model's"
            )


def _place(name: str) -> str:
    """A weight's name from its layer on: what is before that differs between libraries.

    >>> _place("base_model.model.model.layers.0.mlp.up_proj")
    'layers.0.mlp.up_proj'
    """
    before, layers, after = name.partition("layers.")
    return layers + after if layers else before.removeprefix(PREFIX)
