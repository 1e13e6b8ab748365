# SPDX-License-Identifier: Apache-2.0
"""A TensorRT-LLM engine's `config.json`, in every form that it has had.

0.5 to 0.7 wrote `builder_config` and `plugin_config` and no version; from 0.8 there are `version`,
`pretrained_config` and `build_config`. What follows needs none of these differences.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from trellis.engine_files.json_form import Form, Size, read_form
from trellis.errors import TrellisError
from trellis.files import read_json

RANK_SPLIT = re.compile(r"_tp(\d+)_")
RANK_FILE = re.compile(r"rank(\d+)\.engine$")
BYTES = {
    "float32": 4.0,
    "float16": 2.0,
    "bfloat16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5,
}
Ranks = Annotated[int, Field(ge=1, le=1024)]
# Keys that builder_config has gained, newest first: the only hint at which of 0.5 to 0.7 it is.
GAINED_KEYS = (
    ("0.7.2", ("gather_context_logits", "gather_generation_logits", "use_paged_context_fmha")),
    ("0.6.1", ("gather_all_token_logits", "lora_plugin", "lora_target_modules", "max_draft_len")),
)


class EngineConfigError(TrellisError, ValueError):
    """A config.json that cannot be read; the message names the file, the key and what it holds."""


@dataclass(frozen=True)
class EngineConfig:
    """The sizes of an engine. Lengths in tokens; `None` where config.json does not say."""

    version: str
    version_named: bool  # False where `version` is only a guess from the keys
    dtype: str
    tensor_parallel: int
    pipeline_parallel: int
    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_beam_width: int
    max_num_tokens: int | None
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    kv_dtype: str
    paged_kv_cache: bool
    inflight_batching: bool

    @property
    def world_size(self) -> int:
        """Ranks: tensor parallel times pipeline parallel."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def tokens_at_once(self) -> int:
        """Most tokens in one step, for which the engine's activations are laid out."""
        return self.max_num_tokens or self.max_batch_size * self.max_input_len

    def __str__(self) -> str:
        """What it is, in one line, for people."""
        return (
            f"TensorRT-LLM {self.version}, {self.dtype}, TP {self.tensor_parallel} x PP"
            f" {self.pipeline_parallel}, batch {self.max_batch_size}, input {self.max_input_len},"
            f" context {self.max_seq_len}, beams {self.max_beam_width}, vocabulary"
            f" {self.vocab_size}"
        )


class _Builder(Form):
    """`builder_config` of 0.5 to 0.7."""

    precision: str
    tensor_parallel: Ranks = 1
    pipeline_parallel: Ranks = 1
    num_layers: Size
    num_heads: Size
    num_kv_heads: Size | None = None
    hidden_size: Size
    vocab_size: Size
    max_batch_size: Size
    max_input_len: Size
    max_output_len: Size
    max_beam_width: Size = 1
    max_num_tokens: Size | None = None
    int8: bool = False
    quant_mode: int = 0


class _Mapping(Form):
    world_size: Size = 1
    tp_size: Ranks = 1
    pp_size: Ranks = 1


class _Quantization(Form):
    quant_algo: str | None = None
    kv_cache_quant_algo: str | None = None


class _Pretrained(Form):
    """`pretrained_config` from 0.8 on."""

    dtype: str
    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    head_size: Size | None = None
    mapping: _Mapping = _Mapping(world_size=1, tp_size=1, pp_size=1)
    quantization: _Quantization | None = None


class _Build(Form):
    """`build_config` from 0.8 on; `max_output_len` until 0.10, `max_seq_len` after."""

    max_batch_size: Size
    max_input_len: Size
    max_output_len: Size | None = None
    max_seq_len: Size | None = None
    max_beam_width: Size = 1
    max_num_tokens: Size | None = None
    plugin_config: dict[str, Any] = Field(default_factory=dict)


def read_engine_config(path: Path, release: str = "") -> EngineConfig:
    """Read one config.json. `release` overrides what it says of its version.

    Raises EngineConfigError for JSON that cannot be read and for a missing or wrong key.
    """
    data = _json(path)
    try:
        if "builder_config" in data:
            return _from_builder(path, data, release)
        if "pretrained_config" in data and "build_config" in data:
            return _from_pretrained(path, data, release)
    except ValueError as error:
        raise EngineConfigError(str(error)) from error
    raise EngineConfigError(
        f"{path}: not an engine's config.json: neither builder_config (0.5 to 0.7) nor"
        " pretrained_config and build_config (from 0.8) are in it"
    )


def looks_like_trtllm(path: Path) -> bool:
    """Whether a config.json is one that TensorRT-LLM's builder wrote."""
    data = _json(path)
    return "builder_config" in data or {"pretrained_config", "build_config"} <= set(data)


def rank_files(folder: Path, tensor_parallel: Size | None = None) -> dict[int, Path]:
    """The engine file of every rank: `rank0.engine`, `llama_float16_tp2_rank0.engine`.

    Files that name another tensor parallelism than the one given are left over from another build.
    Raises EngineConfigError where two files are left for one rank.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*.engine")):
        match, split = RANK_FILE.search(path.name), RANK_SPLIT.search(path.name)
        if match is None or (split and tensor_parallel and int(split[1]) != tensor_parallel):
            continue
        rank = int(match[1])
        if rank in found:
            raise EngineConfigError(
                f"{folder}: both {found[rank].name} and {path.name} are for rank {rank};"
                " keep the one that config.json belongs to"
            )
        found[rank] = path
    return found


def rank_bytes(folder: Path, tensor_parallel: Size | None = None) -> dict[int, float]:
    """Bytes of each rank's engine, with the weights that newer releases keep beside it."""
    return {
        rank: float(
            sum(
                part.stat().st_size
                for part in (file, *folder.glob(f"rank{rank}_managed_weights*"))
                if part.exists()
            )
        )
        for rank, file in rank_files(folder, tensor_parallel).items()
    }


def missing_ranks(folder: Path, world_size: int, tensor_parallel: Size | None = None) -> list[int]:
    """Ranks without a (non-empty) file of their own."""
    files = rank_files(folder, tensor_parallel)
    return [
        rank
        for rank in range(world_size)
        if rank not in files or not files[rank].exists() or not files[rank].stat().st_size
    ]


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise EngineConfigError(str(error)) from error


class _OldConfig(Form):
    builder_config: _Builder
    plugin_config: dict[str, Any] = Field(default_factory=dict)


class _NewConfig(Form):
    version: str
    pretrained_config: _Pretrained
    build_config: _Build


def _from_builder(path: Path, data: dict[str, Any], release: str) -> EngineConfig:
    config = read_form(path, _OldConfig, data)
    builder, plugins = config.builder_config, config.plugin_config
    keys = {*data["builder_config"], *plugins}
    guess = next((name for name, gained in GAINED_KEYS if keys & set(gained)), "0.5.0")
    return EngineConfig(
        version=release or guess,
        version_named=bool(release),
        dtype=builder.precision,
        tensor_parallel=builder.tensor_parallel,
        pipeline_parallel=builder.pipeline_parallel,
        max_batch_size=builder.max_batch_size,
        max_input_len=builder.max_input_len,
        max_seq_len=builder.max_input_len + builder.max_output_len,
        max_beam_width=builder.max_beam_width,
        max_num_tokens=builder.max_num_tokens,
        vocab_size=builder.vocab_size,
        hidden_size=builder.hidden_size,
        layers=builder.num_layers,
        heads=builder.num_heads,
        kv_heads=builder.num_kv_heads or builder.num_heads,
        head_size=builder.hidden_size // builder.num_heads,
        kv_dtype=_old_kv_dtype(builder),
        paged_kv_cache=bool(plugins.get("paged_kv_cache")),
        inflight_batching=bool(plugins.get("gpt_attention_plugin"))
        and bool(plugins.get("remove_input_padding")),
    )


def _old_kv_dtype(builder: _Builder) -> str:
    """`quant_mode` is a set of flags; these two are the KV cache's."""
    int8_kv_cache, fp8_kv_cache = 1 << 5, 1 << 6
    if builder.quant_mode & int8_kv_cache:
        return "int8"
    return "fp8" if builder.quant_mode & fp8_kv_cache else builder.precision


def _from_pretrained(path: Path, data: dict[str, Any], release: str) -> EngineConfig:
    config = read_form(path, _NewConfig, data)
    model, build, plugins = (
        config.pretrained_config,
        config.build_config,
        config.build_config.plugin_config,
    )
    longest = build.max_seq_len or build.max_input_len + (build.max_output_len or 0)
    quantization = model.quantization or _Quantization()
    return EngineConfig(
        version=release or config.version,
        version_named=True,
        dtype=model.dtype,
        tensor_parallel=model.mapping.tp_size,
        pipeline_parallel=model.mapping.pp_size,
        max_batch_size=build.max_batch_size,
        max_input_len=build.max_input_len,
        max_seq_len=longest,
        max_beam_width=build.max_beam_width,
        max_num_tokens=build.max_num_tokens,
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        layers=model.num_hidden_layers,
        heads=model.num_attention_heads,
        kv_heads=model.num_key_value_heads or model.num_attention_heads,
        head_size=model.head_size or model.hidden_size // model.num_attention_heads,
        kv_dtype=(quantization.kv_cache_quant_algo or model.dtype).lower(),
        # Where a later release no longer writes these two down, they are always on.
        paged_kv_cache=plugins.get("paged_kv_cache", True) is not False,
        inflight_batching=plugins.get("remove_input_padding", True) is not False,
    )
