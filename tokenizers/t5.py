# SPDX-License-Identifier: Apache-2.0
"""t5: T5's SentencePiece unigram model, from tokenizer.json or spiece.model.

There is no BOS; EOS ends every input, as the encoder was trained:

    'Hello world'    -> [8774, 296, 1]    (with T5's own vocabulary)

A tokenizer.json is read as it says. A spiece.model gives the ids of sentencepiece itself, with
special tokens parsed; transformers' T5Tokenizer differs from it after combining marks and control
characters, since its normalizer works on whole graphemes.

Runs of white space count as one space; <extra_id_0> is the last id of the vocabulary.
"""

from pathlib import Path

import tokenizers
from tokenizers import models

from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.fast import FastTokenizer, open_tokenizer_json
from trellis.tokenizers.files import Config, first_of, read_config
from trellis.tokenizers.opening import Kind, Options, finish
from trellis.tokenizers.pieces import finish_model
from trellis.tokenizers.spm import UNIGRAM

MOST_EXTRA = 100_000
_ROLES = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def load(
    tokenizer_dir: Path,
    *,
    add_special_tokens: bool = True,
    add_eos_token: bool | None = None,
    extra_ids: int | None = None,
    parse_special_tokens: bool = True,
    skip_special_tokens: bool = True,
) -> FastTokenizer:
    """Open a folder with tokenizer.json or spiece.model (or tokenizer.model).

    add_special_tokens: False turns EOS off, whatever else says.
    add_eos_token: defaults to tokenizer_config.json, then to True.
    extra_ids: how many <extra_id_...> follow the vocabulary of spiece.model; defaults to
        tokenizer_config.json, then to 100.
    parse_special_tokens: '</s>' in a prompt is the token; False: it is four letters.
    skip_special_tokens: special tokens have no text.
    """
    config = read_config(tokenizer_dir)
    (path,) = first_of(tokenizer_dir, ("tokenizer.json",), ("spiece.model",), ("tokenizer.model",))
    options = Options(
        add_special_tokens=add_special_tokens,
        add_eos_token=add_eos_token,
        parse_special_tokens=parse_special_tokens,
        skip_special_tokens=skip_special_tokens,
    )
    kind = Kind(roles=_ROLES, needed=("eos_token",), eos=True)
    if path.suffix == ".json":
        return finish(_open_json(path), config, options, kind)
    number = _extra_ids(config, extra_ids)
    extra = [f"<extra_id_{index}>" for index in reversed(range(number))]
    return finish_model(
        path, config, options, kind, algorithm=UNIGRAM, extra=extra, second_space=True
    )


def _extra_ids(config: Config, option: int | None) -> int:
    number = config.values.get("extra_ids", 100) if option is None else option
    if type(number) is not int or not 0 <= number <= MOST_EXTRA:
        raise TokenizerError(
            f"{config.folder}: extra_ids is {number!r}; it must be 0 to {MOST_EXTRA}"
        )
    return number


def _open_json(path: Path) -> tokenizers.Tokenizer:
    backend = open_tokenizer_json(path)
    if not isinstance(backend.model, models.Unigram):
        raise TokenizerError(
            f"{path}: not a unigram model; use the type auto, which takes any tokenizer.json"
        )
    return backend
