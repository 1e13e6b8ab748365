# SPDX-License-Identifier: Apache-2.0
"""A tokenizer whose library panics, truly: at a prompt that begins with q, at an answer of z."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

END = "<|endoftext|>"
# The library counts from before the first character when what is put there replaces nothing.
NORMALIZER = {"type": "Replace", "pattern": {"Regex": "(?=q)"}, "content": "x"}
# It strips up to five z, and goes below the beginning of a text that is shorter.
STRIP = {"type": "Strip", "content": "z", "start": 0, "stop": 5}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def panicking_document(document: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json whose normalizer panics at a text that begins with q."""
    return {**document, "normalizer": NORMALIZER}


def write_panicking(folder: Path) -> Path:
    """A byte-level folder of the type auto, whose library panics in both directions."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: at for at, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([END])
    document = panicking_document(json.loads(made.to_str()))
    document["decoder"] = {"type": "Sequence", "decoders": [BYTES, STRIP]}
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(document))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    return folder
