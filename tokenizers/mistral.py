# SPDX-License-Identifier: Apache-2.0
"""mistral: Mistral's tokenizers, from tekken.json, tokenizer.json or a SentencePiece model.

The ids of mistral-common, for SentencePiece v1 to v7 (v7m1 too) and tekken; the version is read
off the vocabulary itself. A tokenizer.json is read as it says. Unlike mistral-common's plain
encode, control tokens in a prompt are parsed (an option), so that a chat prompt is a string like
any other:

    'Hello world'                  -> [1, 22557, 1526]
    '<s>[INST] Hello[/INST]'       -> [1, 3, 23325, 4]    (v3: [INST] is one token)

A folder without a chat template gets the form of its version.
"""

import base64
import binascii
import re
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers

from trellis.tokenizers.chat import ChatTemplate, Plain, take_turns
from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.fast import FastTokenizer, open_tokenizer_json
from trellis.tokenizers.files import first_of, read_config, read_json
from trellis.tokenizers.opening import Kind, Options, finish
from trellis.tokenizers.pieces import finish_model
from trellis.tokenizers.ranks import check_ranks, ranked_backend

_TEKKEN_SPECIAL = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
]
MOST_SPECIAL = 100_000
_ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_MODEL = re.compile(r"tokenizer\.model(?:\.v(\d+)(m\d+)?)?")


def load(
    tokenizer_dir: Path,
    *,
    add_special_tokens: bool = True,
    add_bos_token: bool | None = None,
    add_eos_token: bool | None = None,
    parse_special_tokens: bool = True,
    skip_special_tokens: bool = True,
) -> FastTokenizer:
    """Open a folder with tekken.json, tokenizer.model (or tokenizer.model.v3) or tokenizer.json.

    add_special_tokens: False turns BOS and EOS off, whatever else says.
    add_bos_token, add_eos_token: default to tokenizer_config.json, then to True and False.
    parse_special_tokens: '[INST]' in a prompt is the token; False: it is letters.
    skip_special_tokens: special tokens have no text.
    """
    config = read_config(tokenizer_dir)
    names = ["tekken.json", *_models(tokenizer_dir), "tokenizer.json"]
    (path,) = first_of(tokenizer_dir, *((name,) for name in names))
    options = Options(
        add_special_tokens, add_bos_token, add_eos_token, parse_special_tokens, skip_special_tokens
    )
    kind = Kind(roles=_ROLES, needed=("bos_token", "eos_token"), bos=True)
    if _MODEL.fullmatch(path.name):
        made = finish_model(path, config, options, kind, second_space=True)
    else:
        tekken = path.name == "tekken.json"
        backend = _open_tekken(path) if tekken else open_tokenizer_json(path)
        made = finish(backend, config, options, kind)
    made.chat = made.chat or ChatTemplate.built_in(
        "Mistral's form", partial(_chat, _version(made.backend)), join="\n\n"
    )
    return made


def _models(folder: Path) -> list[str]:
    """The names under which a SentencePiece model may be there: the newest version first."""
    found = [match for path in folder.iterdir() if (match := _MODEL.fullmatch(path.name))]
    newest = sorted(found, key=lambda match: (int(match[1] or 0), match[2] or ""), reverse=True)
    return [match[0] for match in newest] or ["tokenizer.model"]


def _open_tekken(path: Path) -> tokenizers.Tokenizer:
    """Special tokens come first, then the vocabulary, cut to the size that the file names."""
    document = read_json(path)
    try:
        config = document["config"]
        room = int(config["default_num_special_tokens"])
        size = int(config["default_vocab_size"]) - room
        if not (0 <= room <= MOST_SPECIAL and size > 0):
            raise ValueError(f"has {room} special tokens and {size} others")
        tokens = [base64.b64decode(entry["token_bytes"]) for entry in document["vocab"][:size]]
        if len(tokens) < size:
            raise ValueError(f"has {len(tokens)} of {size} tokens")
        special = _tekken_special(document.get("special_tokens"), room)
        pattern = config["pattern"]
        if not isinstance(pattern, str):
            raise TypeError("pattern is no string")
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise TokenizerError(f"{path}: not tekken: {type(error).__name__}: {error}") from error
    check_ranks(tokens, path)
    return ranked_backend(tokens, pattern, special, special_first=True)


def _tekken_special(entries: list[dict[str, Any]] | None, room: int) -> list[str]:
    named = [str(e["token_str"]) for e in entries] if entries else _TEKKEN_SPECIAL
    return named + [f"<SPECIAL_{index}>" for index in range(len(named), room)]


def _version(backend: tokenizers.Tokenizer) -> tuple[int, str]:
    """1, 2 (also for 3) or 7, and the space that SentencePiece puts before a text."""
    space = "" if backend.token_to_id("<SPECIAL_999>") is not None else " "
    if backend.token_to_id("[INST]") is None:
        return 1, space
    system = backend.token_to_id("[SYSTEM_PROMPT]") is not None and space
    return (7 if system else 2), space


def _chat(version: tuple[int, str], messages: Plain, add_generation_prompt: bool) -> str:
    """The conversation as mistral-common's version of that number encodes it."""
    number, space = version
    system, turns = take_turns(messages)
    last_user = max(index for index, turn in enumerate(turns) if turn["role"] == "user")
    prompt = "<s>"
    if number >= 7 and system:
        prompt += f"[SYSTEM_PROMPT]{space}{system}[/SYSTEM_PROMPT]"
    for index, turn in enumerate(turns):
        content = turn["content"]
        if turn["role"] == "assistant":
            content = content if number == 1 else content.rstrip(" ")
            prompt += f"{space}{content}</s>"
            continue
        if system and number < 7 and index == (0 if number == 1 else last_user):
            content = f"{system}\n\n{content}"
        prompt += f" [INST] {content} [/INST]" if number == 1 else f"[INST]{space}{content}[/INST]"
    return prompt
