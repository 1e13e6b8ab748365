# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face checkpoint folder: which of its files the engine needs, and its sizes.

`config.json` and `*.safetensors`. The tokenizer's files may lie beside them and are no part of it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from trellis.engine_files.json_form import Form, Size, read_form
from trellis.engine_files.safetensors_headers import SafetensorsError, Tensor, read_tensors
from trellis.errors import TrellisError
from trellis.files import read_json

# Weights in any format: never copied along with a tokenizer.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".engine", ".h5", ".msgpack")

LAYER = re.compile(r"\.\d+\.")  # model.layers.7.mlp.up_proj.weight
WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}  # dtype -> bytes


class CheckpointError(TrellisError, ValueError):
    """A checkpoint that cannot be served; the message names the file."""


# What a model may have another form of (a size for each layer) is left out then.
OneSize = Annotated[
    int | None, BeforeValidator(lambda value: value if type(value) is int and value > 0 else None)
]
Table = Annotated[
    dict[str, Any] | None, BeforeValidator(lambda value: value if type(value) is dict else None)
]


class TextConfig(Form):
    """`config.json`, or of one with several models the text model's part (`text_config`)."""

    model_config = ConfigDict(strict=True)

    max_position_embeddings: Size | None = None
    vocab_size: Size | None = None
    num_attention_heads: Size | None = None
    num_key_value_heads: Size | None = None
    num_hidden_layers: Size | None = None
    hidden_size: Size | None = None
    head_dim: Size | None = None
    intermediate_size: OneSize = None
    moe_intermediate_size: OneSize = None  # of each expert
    kv_lora_rank: OneSize = None  # keys and values as one latent vector (MLA)
    qk_rope_head_dim: OneSize = None
    dtype: str | None = None
    torch_dtype: str | None = None  # what `dtype` was called before transformers 4.56
    quantization_config: Table = None

    @property
    def head_size(self) -> int:
        """Numbers in a head, 0 if the file does not say."""
        return self.head_dim or (self.hidden_size or 0) // (self.num_attention_heads or 1)

    @property
    def shared_heads(self) -> int | None:
        """Heads of keys and values; None if the file does not say, or has a latent vector."""
        if self.kv_lora_rank is not None:
            return None
        return self.num_key_value_heads or self.num_attention_heads


@dataclass(frozen=True)
class Checkpoint:
    """What `config.json` says, text model's part, and the files to serve."""

    files: tuple[Path, ...]
    config: TextConfig

    @property
    def dtype(self) -> str:
        """As the checkpoint declares it; '' for each weight's own."""
        return self.config.dtype or self.config.torch_dtype or ""

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

    def weight_bytes(self, tensor: int = 1, pipeline: int = 1, dtype: str = "") -> float:
        """Bytes of the weights on the fullest of tensor x pipeline GPUs.

        `tensor` GPUs split all but vectors, which each has whole; `pipeline` groups of them split
        the layers, and one has the embedding, one the head. Raises CheckpointError for a weight
        file that cannot be read.
        """
        width = WIDTHS.get(dtype or self.dtype)
        in_layers, beside = 0.0, 0.0
        ends: dict[str, float] = {}
        for weight in self.tensors():
            split = tensor if len(weight.shape) > 1 else 1
            size = weight.loaded_bytes(width) / split
            if LAYER.search(weight.name):
                in_layers += size
            elif len(weight.shape) > 1:
                ends[weight.name] = size
            else:
                beside += size
        if pipeline == 1:
            return in_layers + beside + sum(ends.values())
        layers = self.config.num_hidden_layers or 1
        share = -(-layers // pipeline) / layers
        return in_layers * share + beside + max(ends.values(), default=0.0)


def looks_like_checkpoint(path: Path) -> bool:
    """Whether a folder holds config.json and *.safetensors."""
    return (path / "config.json").is_file() and any(path.glob("*.safetensors"))


class _Index(Form):
    """`model.safetensors.index.json`: each weight with the file that it is in."""

    weight_map: dict[str, str] = Field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read it. Raises CheckpointError for files that are missing or unreadable."""
    config = _text_config(path / "config.json")
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise CheckpointError(f"{path}: no *.safetensors; convert the checkpoint to safetensors")
    index = path / "model.safetensors.index.json"
    if index.is_file():
        needed = _check_complete(index, {file.name for file in weights})
        # Some have the same weights a second time, in files of another form.
        weights = [file for file in weights if file.name in needed] or weights
    names = ("config.json", "generation_config.json", "engine.yaml")
    beside = [*(path / name for name in names), index]
    return Checkpoint((*(file for file in beside if file.is_file()), *weights), config)


def text_config(config: Mapping[str, Any], file: Path = Path("config.json")) -> TextConfig:
    """The form of `config.json`; `file` is for messages. Raises ValueError for a wrong value."""
    text = config.get("text_config", config)
    if not isinstance(text, Mapping):
        raise ValueError(f"{file}: text_config: not an object; copy the file again")
    beside = ("dtype", "torch_dtype", "quantization_config")  # may be said of the whole model alone
    common = {name: config[name] for name in beside if config.get(name) is not None}
    return read_form(file, TextConfig, {**common, **text})


def _text_config(file: Path) -> TextConfig:
    try:
        config = read_json(file)
        if "architectures" not in config:
            raise ValueError(f"{file}: no `architectures`; not a Hugging Face checkpoint's")
        return text_config(config, file)
    except (OSError, ValueError) as error:
        raise CheckpointError(str(error)) from error


def _check_complete(index: Path, present: set[str]) -> set[str]:
    """The files that an index names. Raises CheckpointError if one of them is not there."""
    try:
        needed = set(read_form(index, _Index, read_json(index)).weight_map.values())
    except (OSError, ValueError) as error:
        raise CheckpointError(str(error)) from error
    missing = sorted(needed - present)
    if missing:
        raise CheckpointError(
            f"{index.parent}: {missing[0]} is missing, and {len(missing) - 1} more; copy it there"
            if len(missing) > 3
            else f"{index.parent}: {', '.join(missing)} is missing; copy it there"
        )
    return needed
