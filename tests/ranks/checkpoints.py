# SPDX-License-Identifier: Apache-2.0
"""Checkpoints made on the spot: SmolLM2 from its GGUF file, and a small Llama of random weights."""

import json
from pathlib import Path
from typing import Any

SMOLLM2_LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def dequantise(gguf_file: Path, folder: Path) -> None:
    """Write a GGUF file of a Llama as config.json and model.safetensors, in float32."""
    import torch
    from gguf import GGUFReader, dequantize
    from safetensors.torch import save_file

    reader = GGUFReader(gguf_file)

    def field(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    heads, shared_heads = field("attention.head_count"), field("attention.head_count_kv")
    weights = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
        name = _name(tensor.name)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weight = _rotary_halves(weight, heads if "q_proj" in name else shared_heads)
        weights[name] = weight.contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_config(
        folder,
        vocab_size=field("vocab_size"),
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=shared_heads,
        max_position_embeddings=field("context_length"),
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")},
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        tie_word_embeddings="lm_head.weight" not in weights,
    )


def random_llama(folder: Path, vocab_size: int, **sizes: Any) -> None:
    """A Llama of 4 heads with random weights, the same ones every time.

    Far from uniform, so that no two tokens are as good: greedy text must not hang on rounding.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    defaults = {
        "hidden_size": 128,  # 32 a head, the least that vLLM has attention for on a CPU
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.5,
    }
    LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **(defaults | sizes))).save_pretrained(
        folder
    )


def write_config(folder: Path, **values: Any) -> None:
    """config.json of a Llama in float32."""
    common = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(common | values, indent=1))


def _name(gguf: str) -> str:
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    parts = gguf.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{SMOLLM2_LAYERS[parts[2]]}.weight"
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    return f"{names[parts[0]]}.weight"


def _rotary_halves(weight: Any, heads: int) -> Any:
    """GGUF interleaves each head's rotary pairs; transformers keeps them as two halves."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)
