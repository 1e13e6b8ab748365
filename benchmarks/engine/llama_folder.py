# SPDX-License-Identifier: Apache-2.0
"""A Llama that nobody trained: a checkpoint of the right shapes that takes no disk, a tokenizer.

vLLM makes the weights up itself (`load_format: dummy`), so `model.safetensors` has a header alone:
behind it the file is a hole as large as the weights would be, for what reads sizes (`make repo`,
preflight). Random weights are as fast as trained ones; the text means nothing.
"""

import itertools
import json
import math
import string
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VOCAB = 32000
MOST_TOKENS = 4096  # of prompt and answer
SIZES = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "heads": 32},
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "heads": 4},
}
END = "<|endoftext|>"
BYTES_OF_BF16 = 2


def write_llama(folder: Path, size: str, **engine_yaml: Any) -> tuple[Path, Path]:
    """checkpoint/ and tokenizer/ of one of SIZES; the keywords go into its engine.yaml."""
    checkpoint, tokenizer = folder / "checkpoint", folder / "tokenizer"
    checkpoint.mkdir(parents=True, exist_ok=True)
    config = _config(**SIZES[size])
    (checkpoint / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    arguments = {"load_format": "dummy", **engine_yaml}
    # JSON is YAML.
    (checkpoint / "engine.yaml").write_text(json.dumps(arguments, indent=1) + "\n")
    _write_hole(checkpoint / "model.safetensors", dict(_shapes(config)))
    write_tokenizer(tokenizer)
    return checkpoint, tokenizer


def _config(heads: int, **sizes: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "dtype": "bfloat16",
        "vocab_size": VOCAB,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": MOST_TOKENS,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "bos_token_id": VOCAB - 1,
        "eos_token_id": VOCAB - 1,
        **sizes,
    }


def _shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    yield "model.embed_tokens.weight", (VOCAB, hidden)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (VOCAB, hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}.{norm}.weight", (hidden,)
        for part in "qkvo":
            yield f"{at}.self_attn.{part}_proj.weight", (hidden, hidden)
        yield f"{at}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{at}.mlp.up_proj.weight", (inner, hidden)
        yield f"{at}.mlp.down_proj.weight", (hidden, inner)


def _write_hole(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """The header of a safetensors file, and a hole for its numbers."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + BYTES_OF_BF16 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(text)) + text)
        opened.truncate(8 + len(text) + end)


def write_tokenizer(folder: Path) -> None:
    """A byte-level vocabulary as large as the model's: the bytes, then Ab and Abc for many letters.

    Nothing that `prompt` writes merges, so that its letters are as many tokens. In GPT-2's files,
    and in those that transformers opens.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    small = string.ascii_lowercase + string.digits
    pairs = list(itertools.product(string.ascii_uppercase, small))
    triples = itertools.product(map("".join, pairs), small)
    merges = list(itertools.islice((*pairs, *triples), VOCAB - len(letters) - 1))
    tokens = [*letters, *map("".join, merges), END]
    vocab = {token: number for number, token in enumerate(tokens)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    whole = tokenizers.Tokenizer(models.BPE(vocab, merges))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    whole.add_special_tokens([END])
    whole.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "bos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def prompt(stream: int, length: int) -> str:
    """`length` letters, each one token; no two streams begin alike."""
    return (f"{stream:04d} " + "abcdefghij" * length)[:length]
