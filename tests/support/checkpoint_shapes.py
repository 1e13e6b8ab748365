"""Checkpoints of known models without their weights: headers of safetensors, and holes."""

import json
import os
import struct
from pathlib import Path
from typing import Any

LLAMA_7B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
}
SMOLLM2: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "float32",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
STORED = {"bfloat16": ("BF16", 2), "float32": ("F32", 4), "F8_E4M3": ("F8_E4M3", 1)}


def write_shape(folder: Path, config: dict[str, Any], stored: str = "", cut: int = 0) -> Path:
    """Config and weights, of which the file has the length alone; all of a layer is one matrix."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shared = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    ends = ["model.embed_tokens"] + ["lm_head"] * (not config.get("tie_word_embeddings"))
    shapes = {f"{name}.weight": [config["vocab_size"], hidden] for name in ends}
    rows = 2 * hidden + 2 * shared + 3 * inner
    for layer in range(config["num_hidden_layers"]):
        shapes[f"model.layers.{layer}.weight"] = [rows, hidden]
    dtype, width = STORED[stored or config["dtype"]]
    header, end = {}, 0
    for name, shape in shapes.items():
        size = shape[0] * shape[1] * width
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(file, 8 + len(text) + end - cut)
    return folder
