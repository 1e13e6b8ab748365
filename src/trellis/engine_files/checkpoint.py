# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face checkpoint folder: which of its files the engine needs, and its sizes.

`config.json` and `*.safetensors`. The tokenizer's files may lie beside them and are no part of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trellis.engine_files.safetensors_headers import SafetensorsError, Tensor, read_tensors
from trellis.errors import TrellisError
from trellis.files import read_json

# Weights in any format: never copied along with a tokenizer.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".engine", ".h5", ".msgpack")

WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}  # dtype -> bytes


class CheckpointError(TrellisError, ValueError):
    """A checkpoint that cannot be served; the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """What `config.json` says, text model's part, and the files to serve."""

    files: tuple[Path, ...]
    max_seq_len: int | None
    vocab_size: int | None
    attention_heads: int | None
    key_value_heads: int | None
    layers: int = 0
    hidden_size: int = 0
    head_size: int = 0
    dtype: str = ""  # "": each weight's own

    def tensors(self) -> Iterator[Tensor]:
        """Of all weight files. Raises CheckpointError for one that cannot be read."""
        for file in self.files:
            if file.suffix != ".safetensors":
                continue
            try:
                yield from read_tensors(file)
            except (OSError, SafetensorsError) as error:
                raise CheckpointError(f"{file.parent}: {error}; copy it again") from None

    def width(self, dtype: str = "") -> int:
        """Bytes of a number in `dtype`, by default the checkpoint's."""
        return WIDTHS.get(dtype or self.dtype, 2)

    def weight_bytes(self, ranks: int = 1, dtype: str = "") -> float:
        """Bytes of the weights on one of so many ranks, which split all but vectors.

        Raises CheckpointError for a weight file that cannot be read.
        """
        width = WIDTHS.get(dtype or self.dtype)
        return sum(
            tensor.numbers * (width or tensor.width) / (ranks if _is_split(tensor) else 1)
            for tensor in self.tensors()
        )


def _is_split(tensor: Tensor) -> bool:
    return len(tensor.shape) > 1


def looks_like_checkpoint(path: Path) -> bool:
    """Whether a folder holds config.json and *.safetensors."""
    return (path / "config.json").is_file() and any(path.glob("*.safetensors"))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read it. Raises CheckpointError for files that are missing or unreadable."""
    config = _text_config(path / "config.json")
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise CheckpointError(f"{path}: no *.safetensors; convert the checkpoint to safetensors")
    index = path / "model.safetensors.index.json"
    if index.is_file():
        _check_complete(index, {file.name for file in weights})
    names = ("config.json", "generation_config.json", "engine.yaml")
    beside = [*(path / name for name in names), index]
    heads = config.get("num_attention_heads")
    return Checkpoint(
        files=(*(file for file in beside if file.is_file()), *weights),
        max_seq_len=config.get("max_position_embeddings"),
        vocab_size=config.get("vocab_size"),
        attention_heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        layers=config.get("num_hidden_layers") or 0,
        hidden_size=config.get("hidden_size") or 0,
        head_size=config.get("head_dim") or (config.get("hidden_size") or 0) // (heads or 1),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or ""),
    )


def _text_config(file: Path) -> dict[str, Any]:
    try:
        config = read_json(file)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not readable: {error}") from error
    if "architectures" not in config or not isinstance(config.get("text_config", {}), dict):
        raise CheckpointError(f"{file}: no `architectures`; not a Hugging Face checkpoint's")
    text: dict[str, Any] = config.get("text_config", config)
    return text


def _check_complete(index: Path, present: set[str]) -> None:
    try:
        needed = set(read_json(index).get("weight_map", {}).values())
    except (AttributeError, ValueError) as error:
        raise CheckpointError(f"{index}: not readable: {error}") from error
    missing = sorted(needed - present)
    if missing:
        raise CheckpointError(f"{index.parent}: {', '.join(missing)} is missing; copy it there")
