"""Tokenizer folders with a chat template of a test's own: a vocabulary of bytes, and few tokens."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

SPECIAL = ["<s>", "</s>", "<img>", "<aud>"]


def chat_folder(folder: Path, chat_template: Any = None, **config: Any) -> Path:
    """The folder, with tokenizer.json and tokenizer_config.json; BOS is <s>, EOS </s>."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken(token) for token in SPECIAL])
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    values |= {"chat_template": chat_template} if chat_template is not None else {}
    (folder / "tokenizer_config.json").write_text(json.dumps({**values, **config}))
    return folder
