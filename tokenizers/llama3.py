# SPDX-License-Identifier: Apache-2.0
"""llama3: Llama 3's byte-level BPE, from tokenizer.json or Meta's tokenizer.model.

    'Hello world'                       -> [128000, 9906, 1917]
    '<|begin_of_text|>Hello world'      -> [128000, 9906, 1917]    BOS once

A tokenizer.json is read as it says. A folder without a chat template gets Llama 3's own form, with
its role headers; then <|eot_id|> and <|eom_id|> end an answer, as <|end_of_text|> does.
"""

from pathlib import Path

import tokenizers

from trellis.tokenizers.chat import ChatTemplate, Plain, with_headers
from trellis.tokenizers.fast import FastTokenizer, open_byte_level
from trellis.tokenizers.files import first_of, read_config
from trellis.tokenizers.opening import Kind, Options, finish
from trellis.tokenizers.ranks import ranked_backend, read_so_many

_WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NAMED = (
    "begin_of_text",
    "end_of_text",
    "reserved_special_token_0",
    "reserved_special_token_1",
    "finetune_right_pad_id",
    "step_id",
    "start_header_id",
    "end_header_id",
    "eom_id",
    "eot_id",
    "python_tag",
    "image",
)
RANKS = 128_000
"""How many tokens tokenizer.model has."""
_ROLES = {
    "bos_token": "<|begin_of_text|>",
    "eos_token": "<|end_of_text|>",
    "pad_token": "<|finetune_right_pad_id|>",
}
_SPECIAL = [f"<|{name}|>" for name in _NAMED]
_SPECIAL += [f"<|reserved_special_token_{index}|>" for index in range(2, 246)]


def load(
    tokenizer_dir: Path,
    *,
    add_special_tokens: bool = True,
    add_bos_token: bool | None = None,
    parse_special_tokens: bool = True,
    skip_special_tokens: bool = True,
) -> FastTokenizer:
    """Open a folder with tokenizer.json or tokenizer.model.

    add_special_tokens: False turns BOS off, whatever else says.
    add_bos_token: defaults to tokenizer_config.json, then to True.
    parse_special_tokens: '<|eot_id|>' in a prompt is the token; False: it is letters.
    skip_special_tokens: special tokens have no text.
    """
    config = read_config(tokenizer_dir)
    (path,) = first_of(tokenizer_dir, ("tokenizer.json",), ("tokenizer.model",))
    options = Options(
        add_special_tokens=add_special_tokens,
        add_bos_token=add_bos_token,
        parse_special_tokens=parse_special_tokens,
        skip_special_tokens=skip_special_tokens,
    )
    kind = Kind(
        roles=_ROLES,
        needed=("bos_token", "eos_token"),
        bos=True,
        chat=ChatTemplate.built_in("Llama 3's form", llama3),
        ends=("<|eot_id|>", "<|eom_id|>"),
    )
    return finish(_open(path), config, options, kind)


def _open(path: Path) -> tokenizers.Tokenizer:
    if path.suffix == ".json":
        return open_byte_level(path)
    ranks = read_so_many(path, RANKS, "Llama 3's", "200000 are Llama 4's, of the type llama4")
    return ranked_backend(ranks, _WORD, _SPECIAL)


def llama3(messages: Plain, add_generation_prompt: bool) -> str:
    """Llama 3's own form: each message, stripped, under a header with its role.

    <|start_header_id|>user<|end_header_id|>\\n\\nHello<|eot_id|>
    """
    return with_headers(
        messages, add_generation_prompt, "start_header_id", "end_header_id", "eot_id"
    )
