"""qwen: Qwen's byte-level BPE, from tokenizer.json, vocab.json with merges.txt, or qwen.tiktoken.

Text is composed (NFC) first and digits are cut one by one; there is no BOS:

    'Hello 42'    -> Hello | ' ' | 4 | 2
    'e\\u0301'     -> the ids of 'é'

A folder without a chat template gets ChatML, <|im_start|> and <|im_end|>; then <|im_end|> ends an
answer, as <|endoftext|> does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

from tokenizer_registry.core.chat import ChatTemplate
from tokenizer_registry.core.fast import (
    Behaviour,
    FastTokenizer,
    add_roles,
    add_tokens,
    open_bpe,
    open_byte_level,
    special_id,
)
from tokenizer_registry.core.files import first_of, read_config
from tokenizer_registry.core.ranks import ranked_backend, read_ranks

_WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def load(
    tokenizer_dir: Path,
    *,
    add_special_tokens: bool = True,
    add_bos_token: bool | None = None,
    parse_special_tokens: bool = True,
    skip_special_tokens: bool = True,
) -> FastTokenizer:
    """Open a folder with tokenizer.json, vocab.json and merges.txt, or qwen.tiktoken.

    add_special_tokens: False turns BOS off, whatever else says.
    add_bos_token: defaults to tokenizer_config.json, then to False; needs a bos_token there.
    parse_special_tokens: '<|im_end|>' in a prompt is the token; False: it is letters.
    skip_special_tokens: special tokens have no text.
    """
    config = read_config(tokenizer_dir)
    paths = first_of(
        tokenizer_dir, ("tokenizer.json",), ("vocab.json", "merges.txt"), ("qwen.tiktoken",)
    )
    roles = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", **config.roles}
    backend = _open(paths)
    add_tokens(backend, config.added, tokenizer_dir)
    add_roles(backend, roles, config.others)
    wanted = add_special_tokens and config.flag("add_bos_token", add_bos_token, False)
    behaviour = Behaviour(
        prefix=(special_id(backend, roles, "bos_token", tokenizer_dir),) if wanted else (),
        parse_special_tokens=parse_special_tokens,
        skip_special_tokens=skip_special_tokens,
    )
    chat = config.chat_template(roles)
    ends = () if chat else ("<|im_end|>",)
    chat = chat or ChatTemplate(chatml)
    return FastTokenizer(backend, behaviour, roles=roles, chat=chat, ends=ends)


def _open(paths: tuple[Path, ...]) -> tokenizers.Tokenizer:
    if paths[0].suffix == ".tiktoken":
        extra = [f"<|extra_{index}|>" for index in range(205)]
        return ranked_backend(read_ranks(paths[0]), _WORD, _SPECIAL + extra, nfc=True)
    if len(paths) == 1:
        return open_byte_level(paths[0])
    backend = open_bpe(paths[0], paths[1])
    backend.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = pre_tokenizers.Split(Regex(_WORD), "isolated", False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, byte_level])
    return backend


def chatml(messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
    """ChatML: '<|im_start|>user\\nHello<|im_end|>\\n' for each message."""
    prompt = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return prompt + "<|im_start|>assistant\n" if add_generation_prompt else prompt
