# SPDX-License-Identifier: Apache-2.0
"""llama4: Llama 4's byte-level BPE, from tokenizer.json or Meta's tokenizer.model.

    'Hello world'                       -> [200000, 19556, 2817]
    '<|begin_of_text|>Hello world'      -> [200000, 19556, 2817]    BOS once

A tokenizer.json is read as it says. A folder without a chat template gets Llama 4's own form, with
its role headers; then <|eot|> and <|eom|> end an answer, as <|end_of_text|> does.
"""

from pathlib import Path

import tokenizers

from trellis.tokenizers.chat import ChatTemplate, Plain, with_headers
from trellis.tokenizers.fast import FastTokenizer, open_byte_level
from trellis.tokenizers.files import first_of, read_config
from trellis.tokenizers.opening import Kind, Options, finish
from trellis.tokenizers.ranks import ranked_backend, read_so_many

_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_WORD = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SHORT}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SHORT}|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
RANKS = 200_000
"""How many tokens tokenizer.model has."""
_ROOM = 2_048  # special tokens after them


def _special() -> list[str]:
    """The special tokens in their order, filled up with reserved ones."""
    named = ["begin_of_text", "end_of_text", "fim_prefix", "fim_middle", "fim_suffix"]
    named += ["header_start", "header_end", "eom", "eot", "step"]
    named += _reserved("text_post_train", 0, 6)
    named += ["python_start", "python_end", "finetune_right_pad"]
    named += _reserved("text_post_train", 8, 69)
    named += ["image_start", "image_end", *_reserved("vision", 0, 2), "tile_x_separator"]
    named += ["tile_y_separator", *_reserved("vision", 2, 6), "image", *_reserved("vision", 6, 7)]
    named += ["patch", *_reserved("vision", 7, 1048), *_reserved("reasoning", 0, 8)]
    named += ["reasoning_thinking_start", "reasoning_thinking_end"]
    named += [f"reserved_special_token_{index}" for index in range(_ROOM - len(named))]
    return [f"<|{name}|>" for name in named]


def _reserved(name: str, first: int, end: int) -> list[str]:
    return [f"{name}_reserved_special_token_{index}" for index in range(first, end)]


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
    parse_special_tokens: '<|eot|>' in a prompt is the token; False: it is letters.
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
        roles={
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|end_of_text|>",
            "pad_token": "<|finetune_right_pad|>",
        },
        needed=("bos_token", "eos_token"),
        bos=True,
        chat=ChatTemplate.built_in("Llama 4's form", llama4),
        ends=("<|eot|>", "<|eom|>"),
    )
    return finish(_open(path), config, options, kind)


def _open(path: Path) -> tokenizers.Tokenizer:
    if path.suffix == ".json":
        return open_byte_level(path)
    ranks = read_so_many(path, RANKS, "Llama 4's", "128000 are Llama 3's, of the type llama3")
    return ranked_backend(ranks, _WORD, _special())


def llama4(messages: Plain, add_generation_prompt: bool) -> str:
    """Llama 4's own form: each message, stripped, under a header with its role.

    <|header_start|>user<|header_end|>\\n\\nHello<|eot|>
    """
    return with_headers(messages, add_generation_prompt, "header_start", "header_end", "eot")
