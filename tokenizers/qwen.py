# SPDX-License-Identifier: Apache-2.0
"""qwen: Qwen's byte-level BPE, from tokenizer.json, vocab.json with merges.txt, or *.tiktoken.

A tokenizer.json is read as it says. With the other files, text is composed (NFC) first and digits
are cut one by one; there is no BOS:

    'Hello 42'    -> Hello | ' ' | 4 | 2
    'e\\u0301'     -> the ids of 'é'

A folder without a chat template gets ChatML, <|im_start|> and <|im_end|>; then <|im_end|> ends an
answer, as <|endoftext|> does.
"""

from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

from trellis.tokenizers.chat import ChatTemplate, Plain
from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.fast import FastTokenizer, open_bpe, open_byte_level
from trellis.tokenizers.files import Config, first_of, read_config
from trellis.tokenizers.opening import Kind, Options, finish
from trellis.tokenizers.ranks import ranked_backend, read_ranks

_ROLES = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@dataclass(frozen=True)
class _Generation:
    """How models of a generation cut words, and what follows their vocabulary."""

    pattern: str
    special: list[str]
    added: tuple[str, ...] = ()
    """Those of `special` that are text all the same."""


def _pattern(letters: str, marks: str) -> str:
    return (
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?{letters}+|\p{{N}}"
        rf"| ?[^\s\p{{L}}{marks}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


def _named(names: str) -> list[str]:
    return [f"<|{name}|>" for name in names.split()]


_FIRST = _Generation(
    _pattern(r"\p{L}", ""), [*_SPECIAL, *(f"<|extra_{index}|>" for index in range(205))]
)
_TEXT = (
    *("<tool_call>", "</tool_call>"),
    *_named("fim_prefix fim_middle fim_suffix fim_pad repo_name file_sep"),
    *("<tool_response>", "</tool_response>", "<think>", "</think>"),
)
_NEWER = _Generation(  # Qwen 3.5 and 3.6: marks belong to words
    _pattern(r"[\p{L}\p{M}]", r"\p{M}"),
    [
        *_SPECIAL,
        *_named("object_ref_start object_ref_end box_start box_end quad_start quad_end"),
        *_named("vision_start vision_end vision_pad image_pad video_pad"),
        *_TEXT,
        *_named("audio_start audio_end"),
        *("<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>"),
        "<|audio_pad|>",
    ],
    _TEXT,
)
_BY_SIZE = {151_643: _FIRST, 248_044: _NEWER}  # tokens of the vocabulary; Qwen to 3, and newer
_BY_CLASS = {"Qwen2Tokenizer": _FIRST, "Qwen3_5Tokenizer": _NEWER}


def load(
    tokenizer_dir: Path,
    *,
    add_special_tokens: bool = True,
    add_bos_token: bool | None = None,
    parse_special_tokens: bool = True,
    skip_special_tokens: bool = True,
) -> FastTokenizer:
    """Open a folder with tokenizer.json, vocab.json and merges.txt, or *.tiktoken.

    add_special_tokens: False turns BOS off, whatever else says.
    add_bos_token: defaults to tokenizer_config.json, then to False; needs a bos_token there.
    parse_special_tokens: '<|im_end|>' in a prompt is the token; False: it is letters.
    skip_special_tokens: special tokens have no text.
    """
    config = read_config(tokenizer_dir)
    names = sorted(path.name for path in tokenizer_dir.glob("*.tiktoken")) or ["qwen.tiktoken"]
    paths = first_of(tokenizer_dir, ("tokenizer.json",), ("vocab.json", "merges.txt"), (names[-1],))
    options = Options(
        add_special_tokens=add_special_tokens,
        add_bos_token=add_bos_token,
        parse_special_tokens=parse_special_tokens,
        skip_special_tokens=skip_special_tokens,
    )
    kind = Kind(
        roles=_ROLES,
        needed=("eos_token",),
        chat=ChatTemplate.built_in("ChatML", chatml),
        ends=("<|im_end|>",),
    )
    return finish(_open(paths, config), config, options, kind)


def _open(paths: tuple[Path, ...], config: Config) -> tokenizers.Tokenizer:
    if paths[0].suffix == ".tiktoken":
        return _open_ranks(paths[0])
    if len(paths) == 1:
        return open_byte_level(paths[0])
    backend = open_bpe(paths[0], paths[1])
    named = str(config.values.get("tokenizer_class")).removesuffix("Fast")
    generation = _BY_CLASS.get(named) or _BY_SIZE.get(backend.get_vocab_size(), _FIRST)
    backend.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = pre_tokenizers.Split(Regex(generation.pattern), "isolated", False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, byte_level])
    return backend


def _open_ranks(path: Path) -> tokenizers.Tokenizer:
    ranks = read_ranks(path)
    generation = _BY_SIZE.get(len(ranks))
    if generation is None:
        sizes = " or ".join(map(str, _BY_SIZE))
        raise TokenizerError(f"{path}: has {len(ranks)} tokens, not {sizes} as Qwen's")
    return ranked_backend(
        ranks, generation.pattern, generation.special, text=generation.added, nfc=True
    )


def chatml(messages: Plain, add_generation_prompt: bool) -> str:
    """ChatML: '<|im_start|>user\\nHello<|im_end|>\\n' for each message."""
    prompt = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return prompt + "<|im_start|>assistant\n" if add_generation_prompt else prompt
