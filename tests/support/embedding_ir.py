"""A BERT as OpenVINO IR, of any weights in Hugging Face's names: an embedding engine."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_tokenizers
from openvino import opset13 as op
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

Weights = Mapping[str, np.ndarray]

WORDS = [
    "the",
    "of",
    "and",
    "a",
    "sea",
    "cat",
    "dog",
    "ship",
    "light",
    "house",
    "keeper",
    "climbed",
    "stairs",
    "lamp",
    "evening",
]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


def write_embedding_engine(folder: Path, pooling: str = "mean") -> Path:
    """A small one of random weights, with a tokenizer of its own."""
    folder.mkdir()
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    sizes = {**SIZES, "vocab_size": len(tokenizer), "model_type": "bert"}
    write_bert(folder, random_weights(sizes), sizes, tokenizer)
    key = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}[pooling]
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{key}": True}))
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    pieces = [*SPECIAL, *WORDS, *"abcdefghijklmnopqrstuvwxyz.,", *(f"##{c}" for c in "abcdefgh")]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    said = dict(zip(names, SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, **said)  # type: ignore[no-untyped-call]


def random_weights(sizes: Mapping[str, Any]) -> Weights:
    """Of a BERT of these sizes."""
    random = np.random.default_rng(0)
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (sizes["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (sizes["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (sizes["type_vocab_size"], hidden),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(sizes["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            shapes[f"{at}.attention.self.{name}.weight"] = (hidden, hidden)
        shapes[f"{at}.attention.output.dense.weight"] = (hidden, hidden)
        shapes[f"{at}.intermediate.dense.weight"] = (inner, hidden)
        shapes[f"{at}.output.dense.weight"] = (hidden, inner)
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
    weights = {name: random.normal(0, 0.3, shape) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        if name.startswith("encoder"):
            weights[name.replace("weight", "bias")] = random.normal(0, 0.1, shape[0])
    for norm in norms:
        weights |= {f"{norm}.weight": np.ones(hidden), f"{norm}.bias": np.zeros(hidden)}
    return weights


def write_bert(folder: Path, weights: Weights, sizes: Mapping[str, Any], tokenizer: Any) -> None:
    """openvino_model.xml, openvino_tokenizer.xml and config.json of a folder."""
    ov.save_model(_bert(weights, sizes), folder / "openvino_model.xml", compress_to_fp16=False)
    converted = openvino_tokenizers.convert_tokenizer(tokenizer)
    ov.save_model(converted, folder / "openvino_tokenizer.xml")
    (folder / "config.json").write_text(json.dumps(dict(sizes)))


def _bert(weights: Weights, sizes: Mapping[str, Any]) -> Any:
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [op.parameter([-1, -1], np.int64, name=name) for name in names]
    for port, name in zip(inputs, names, strict=True):
        port.output(0).set_names({name})
    ids, mask, types = inputs
    length = op.gather(op.shape_of(ids), op.constant(1), op.constant(0))
    places = op.range(op.constant(np.int64(0)), length, op.constant(np.int64(1)), "i64")
    hidden: Any = op.add(
        op.add(_row(weights, "word", ids), _row(weights, "token_type", types)),
        _row(weights, "position", places),
    )
    hidden = _norm(weights, "embeddings.LayerNorm", hidden, sizes)
    kept = op.convert(op.unsqueeze(op.unsqueeze(mask, 1), 1), "f32")
    hidden_away = op.multiply(op.subtract(kept, np.float32(1)), np.float32(1e9))
    for layer in range(sizes["num_hidden_layers"]):
        hidden = _layer(weights, f"encoder.layer.{layer}", hidden, hidden_away, sizes)
    hidden.output(0).set_names({"last_hidden_state"})
    return ov.Model([op.result(hidden)], inputs, "bert")


def _row(weights: Weights, name: str, at: Any) -> Any:
    table = weights[f"embeddings.{name}_embeddings.weight"].astype(np.float32)
    return op.gather(op.constant(table), at, op.constant(0))


def _dense(weights: Weights, name: str, of: Any) -> Any:
    by = op.constant(weights[f"{name}.weight"].astype(np.float32))
    return op.add(
        op.matmul(of, by, False, True), op.constant(weights[f"{name}.bias"].astype(np.float32))
    )


def _norm(weights: Weights, name: str, of: Any, sizes: Mapping[str, Any]) -> Any:
    even = op.mvn(of, op.constant([-1]), True, sizes["layer_norm_eps"], "inside_sqrt")
    scaled = op.multiply(even, op.constant(weights[f"{name}.weight"].astype(np.float32)))
    return op.add(scaled, op.constant(weights[f"{name}.bias"].astype(np.float32)))


def _layer(weights: Weights, at: str, hidden: Any, away: Any, sizes: Mapping[str, Any]) -> Any:
    heads = sizes["num_attention_heads"]
    width = sizes["hidden_size"] // heads

    def split(name: str) -> Any:
        made = _dense(weights, f"{at}.attention.self.{name}", hidden)
        return op.transpose(op.reshape(made, [0, 0, heads, width], True), [0, 2, 1, 3])

    scores = op.matmul(split("query"), split("key"), False, True)
    chances = op.softmax(op.add(op.divide(scores, np.float32(width**0.5)), away), -1)
    mixed = op.transpose(op.matmul(chances, split("value"), False, False), [0, 2, 1, 3])
    mixed = op.reshape(mixed, [0, 0, heads * width], True)
    mixed = op.add(_dense(weights, f"{at}.attention.output.dense", mixed), hidden)
    mixed = _norm(weights, f"{at}.attention.output.LayerNorm", mixed, sizes)
    inner = op.gelu(_dense(weights, f"{at}.intermediate.dense", mixed), "erf")
    made = op.add(_dense(weights, f"{at}.output.dense", inner), mixed)
    return _norm(weights, f"{at}.output.LayerNorm", made, sizes)
