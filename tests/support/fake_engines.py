"""Engine folders as TensorRT-LLM's builder leaves them, and a checkpoint: sizes, no weights."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.mark import ParameterSet

RELEASES = [
    *("0.5.0", "0.6.1", "0.7.2", "0.8.0", "0.9.0", "0.10.0", "0.11.0", "0.12.0"),
    *("0.13.0", "0.14.0", "0.15.0", "0.16.0", "0.17.0", "0.18.2", "0.19.0", "1.x"),
]
# One for each kind of wiring: unsigned ids and no batches, old names, new names, all inputs.
KINDS = {"0.5.0", "0.9.0", "0.17.0", "1.x"}
VERSIONS = {"1.x": "1.0.0"}  # what config.json says, where it is not the contract's own name


def slow_but_kinds(releases: Iterable[str] = RELEASES) -> list[ParameterSet]:
    """Parameters of a test that takes every release: those outside KINDS are slow."""
    return [
        pytest.param(release, marks=() if release in KINDS else pytest.mark.slow)
        for release in releases
    ]


def old_config(release: str, **changes: Any) -> dict[str, Any]:
    """`config.json` of 0.5 to 0.7: a Llama-2-7B, but for the small context."""
    builder = {
        "name": "llama",
        "precision": "bfloat16",
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        "num_layers": 32,
        "num_heads": 32,
        "num_kv_heads": 32,
        "hidden_size": 4096,
        "vocab_size": 32000,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "max_batch_size": 8,
        "max_input_len": 2048,
        "max_output_len": 512,
        "max_beam_width": 4,
        "max_num_tokens": None,
        "int8": False,
    }
    if release != "0.5.0":
        builder["gather_all_token_logits"] = False
    if release == "0.7.2":
        builder["gather_context_logits"] = False
    plugins = {
        "gpt_attention_plugin": "bfloat16",
        "gemm_plugin": "bfloat16",
        "paged_kv_cache": True,
        "remove_input_padding": True,
        "tokens_per_block": 64,
    }
    return {"builder_config": builder | changes, "plugin_config": plugins}


def new_config(release: str, **changes: Any) -> dict[str, Any]:
    """`config.json` from 0.8 on: the same model; `changes` go where their key is."""
    version = VERSIONS.get(release, release)
    late = [int(part) for part in version.split(".")[:2]] >= [0, 11]
    pretrained = {
        "architecture": "LlamaForCausalLM",
        "dtype": "bfloat16",
        "logits_dtype": "float32",
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_size": 128,
        "intermediate_size": 11008,
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
        "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
    }
    build = {
        "max_input_len": 2048,
        "max_batch_size": 8,
        "max_beam_width": 4,
        "max_num_tokens": 16384,
        **({"max_seq_len": 2560} if late else {"max_output_len": 512}),
        "plugin_config": {"gpt_attention_plugin": "bfloat16", "paged_kv_cache": True},
    }
    for key, value in changes.items():
        (build if key in build else pretrained)[key] = value
    return {"version": version, "pretrained_config": pretrained, "build_config": build}


def config(release: str, **changes: Any) -> dict[str, Any]:
    """`config.json` in the form of that release."""
    old = release in ("0.5.0", "0.6.1", "0.7.2")
    return old_config(release, **changes) if old else new_config(release, **changes)


def write_engine(folder: Path, release: str, ranks: int = 1, **changes: Any) -> Path:
    """An engine folder with a dummy file for every rank."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(release, **changes), indent=1))
    old = release in ("0.5.0", "0.6.1", "0.7.2")
    for rank in range(ranks):
        name = f"llama_bfloat16_tp{ranks}_rank{rank}.engine" if old else f"rank{rank}.engine"
        (folder / name).write_bytes(b"not an engine")
    return folder


def write_checkpoint(folder: Path, **changes: Any) -> Path:
    """A Hugging Face checkpoint of a small Llama: its configuration, and one weight of zeros."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "vocab_size": 32000,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config | changes, indent=1))
    save_file({"model.norm.weight": np.zeros(64, np.float16)}, folder / "model.safetensors")
    return folder


def write_ir_layers(folder: Path, shapes: Mapping[str, tuple[int, int]]) -> Path:
    """An OpenVINO IR as far as `make repo` reads it: layers that are multiplied by weights."""
    folder.mkdir()
    layers = "".join(
        f'<layer id="{number}" name="__module.{name}/ov_ext::linear/MatMul" type="MatMul">'
        '<data transpose_a="false" transpose_b="true"/><input><port id="0"/><port id="1">'
        f"<dim>{rows}</dim><dim>{columns}</dim></port></input></layer>"
        for number, (name, (rows, columns)) in enumerate(shapes.items())
    )
    (folder / "openvino_model.xml").write_text(f"<net><layers>{layers}</layers></net>")
    return folder
