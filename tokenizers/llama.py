# SPDX-License-Identifier: Apache-2.0
"""llama: Llama-2 style SentencePiece, from tokenizer.json or tokenizer.model.

A tokenizer.json is read as it says: its ids are those of the library `tokenizers`, and of
transformers 4.57. (transformers 5 replaces the normalizer of Llama's files by one of its own.)

A tokenizer.model gives the ids of transformers' LlamaTokenizer with legacy=False:

    'Hello world'         -> [1, 22557, 1526]    (with Mistral's first vocabulary)
    '<s>Hello world'      -> [1, 16230, 1526]    BOS once; no space is put after a special token
    '녕'                  -> [1, 28705, 238, 136, 152]    what has no piece becomes its bytes

It puts no second space before a prompt that begins with one; sentencepiece itself, the type
mistral, and `"legacy": true` in tokenizer_config.json do.

A folder without a chat template gets Llama-2's own form, [INST] and <<SYS>>.
"""

from collections.abc import Mapping
from pathlib import Path

import tokenizers

from trellis.tokenizers.chat import ChatTemplate, llama2
from trellis.tokenizers.decoding import decoder_kinds
from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.fast import FastTokenizer, open_tokenizer_json
from trellis.tokenizers.files import first_of, read_config
from trellis.tokenizers.opening import Kind, Options, finish
from trellis.tokenizers.pieces import finish_model

_ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def load(
    tokenizer_dir: Path,
    *,
    add_special_tokens: bool = True,
    add_bos_token: bool | None = None,
    add_eos_token: bool | None = None,
    parse_special_tokens: bool = True,
    skip_special_tokens: bool = True,
) -> FastTokenizer:
    """Open a folder with tokenizer.json or tokenizer.model.

    add_special_tokens: False turns BOS and EOS off, whatever else says.
    add_bos_token, add_eos_token: default to tokenizer_config.json, then to what tokenizer.json
        does by itself, then to True and False.
    parse_special_tokens: '</s>' in a prompt is the token; False: it is four letters.
    skip_special_tokens: special tokens have no text.
    """
    config = read_config(tokenizer_dir)
    (path,) = first_of(tokenizer_dir, ("tokenizer.json",), ("tokenizer.model",))
    options = Options(
        add_special_tokens, add_bos_token, add_eos_token, parse_special_tokens, skip_special_tokens
    )
    kind = Kind(roles=_ROLES, needed=("bos_token", "eos_token"), bos=True)
    if path.suffix == ".model":
        legacy = config.flag("legacy", None, False)
        made = finish_model(path, config, options, kind, legacy=legacy)
    else:
        made = finish(_open(path), config, options, kind)
    made.chat = made.chat or _own_form(made, {**_ROLES, **config.roles})
    return made


def _open(path: Path) -> tokenizers.Tokenizer:
    backend = open_tokenizer_json(path)
    if "ByteLevel" in decoder_kinds(backend):
        raise TokenizerError(
            f"{path}: not Llama-2 style, but a byte-level BPE; use the type auto, or gpt2, llama3"
            " or qwen for a model of these"
        )
    return backend


def _own_form(made: FastTokenizer, roles: Mapping[str, str]) -> ChatTemplate:
    """Llama-2's form. Meta encoded each turn as a text of its own, which begins with a space."""
    bos, eos = roles["bos_token"], roles["eos_token"]
    begins = [made.bos_id, *made.encode_bare("[INST]")]
    space = "" if made.encode_bare(f"{bos}[INST]") == begins else " "
    return ChatTemplate.built_in(
        "Llama-2's form", lambda messages, _: llama2(messages, bos=bos, eos=eos, space=space)
    )
