# SPDX-License-Identifier: Apache-2.0
"""gpt2: byte-level BPE, from tokenizer.json, or vocab.json with merges.txt.

    'Hello world'                      -> [15496, 995]
    'Hello world', add_bos_token=true  -> [50256, 15496, 995]

`add_bos_token` really puts BOS before a prompt, as transformers' slow tokenizer does and its fast
one does not; a prompt that begins with <|endoftext|> gets no second one, so that a chat template
may write it. OpenAI's own names for the files, encoder.json and vocab.bpe, do as well.

Any byte-level tokenizer.json is read as it says; its ids are those of the library `tokenizers`.
"""

from pathlib import Path

import tokenizers
from tokenizers import pre_tokenizers

from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.fast import FastTokenizer, open_bpe, open_byte_level
from trellis.tokenizers.files import Config, first_of, read_config
from trellis.tokenizers.opening import Kind, Options, finish

_END = "<|endoftext|>"
_ROLES = {"bos_token": _END, "eos_token": _END, "unk_token": _END}
# Classes whose vocab.json and merges.txt cut words in another way.
_OTHERS = {"Qwen2Tokenizer": "qwen", "Qwen3_5Tokenizer": "qwen", "CLIPTokenizer": "none"}


def load(
    tokenizer_dir: Path,
    *,
    add_special_tokens: bool = True,
    add_bos_token: bool | None = None,
    parse_special_tokens: bool = True,
    skip_special_tokens: bool = True,
) -> FastTokenizer:
    """Open a folder with tokenizer.json, or vocab.json and merges.txt.

    add_special_tokens: False turns BOS off, whatever else says.
    add_bos_token: defaults to tokenizer_config.json, then to what tokenizer.json does by itself.
    parse_special_tokens: '<|endoftext|>' in a prompt is the token; False: it is letters.
    skip_special_tokens: special tokens have no text.
    """
    config = read_config(tokenizer_dir)
    options = Options(
        add_special_tokens=add_special_tokens,
        add_bos_token=add_bos_token,
        parse_special_tokens=parse_special_tokens,
        skip_special_tokens=skip_special_tokens,
    )
    paths = first_of(
        tokenizer_dir,
        ("tokenizer.json",),
        ("vocab.json", "merges.txt"),
        ("encoder.json", "vocab.bpe"),
    )
    if len(paths) == 1:
        return finish(open_byte_level(paths[0]), config, options, Kind(roles=_ROLES))
    backend = _open(paths, config)
    return finish(backend, config, options, Kind(roles=_ROLES, needed=("eos_token",)))


def _open(paths: tuple[Path, ...], config: Config) -> tokenizers.Tokenizer:
    named = config.values.get("tokenizer_class")
    other = _OTHERS.get(str(named).removesuffix("Fast"))
    if other is not None:
        raise TokenizerError(
            f"{config.folder}: its tokenizer_class is {named}, which cuts words in another way than"
            f" GPT-2; the type for it: {other}"
        )
    backend = open_bpe(paths[0], paths[1])
    space = config.flag("add_prefix_space", None, False)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    return backend
