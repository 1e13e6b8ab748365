"""mistral: Mistral's tokenizers, from tekken.json, tokenizer.json or a SentencePiece model.

The ids of mistral-common, for SentencePiece v1 to v7 and tekken; the version is read off the
vocabulary itself. Unlike mistral-common's plain encode, control tokens in a prompt are parsed
(an option), so that a chat prompt is a string like any other:

    'Hello world'                  -> [1, 22557, 1526]
    '<s>[INST] Hello[/INST]'       -> [1, 3, 23325, 4]    (v3: [INST] is one token)

A folder without a chat template gets the form of its version.
"""

import base64
import binascii
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers

from tokenizer_registry.core.chat import ChatTemplate, Plain, take_turns
from tokenizer_registry.core.errors import TokenizerError
from tokenizer_registry.core.fast import (
    Behaviour,
    FastTokenizer,
    add_roles,
    add_tokens,
    open_tokenizer_json,
    special_id,
)
from tokenizer_registry.core.files import first_of, read_config, read_json
from tokenizer_registry.core.pieces import piece_encoder
from tokenizer_registry.core.ranks import check_ranks, ranked_backend
from tokenizer_registry.core.spm import Model, bpe_backend, read_model

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
_VERSIONS = ("", ".v1", ".v2", ".v3", ".v7")


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
    names = ["tekken.json", *(f"tokenizer.model{v}" for v in _VERSIONS), "tokenizer.json"]
    (path,) = first_of(tokenizer_dir, *((name,) for name in names))
    model = read_model(path) if ".model" in path.name else None
    backend = _open(path, model)
    add_tokens(backend, config.added, tokenizer_dir)
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **config.roles}
    if backend.token_to_id("<pad>") is not None:
        roles.setdefault("pad_token", "<pad>")
    add_roles(backend, roles, config.others)

    def around(role: str, wanted: bool) -> tuple[int, ...]:
        wanted = wanted and add_special_tokens
        return (special_id(backend, roles, role, tokenizer_dir),) if wanted else ()

    behaviour = Behaviour(
        prefix=around("bos_token", config.flag("add_bos_token", add_bos_token, True)),
        suffix=around("eos_token", config.flag("add_eos_token", add_eos_token, False)),
        parse_special_tokens=parse_special_tokens,
        skip_special_tokens=skip_special_tokens,
        prefix_space_always=model is not None,
    )
    chat = config.chat_template(roles) or ChatTemplate.built_in(
        "Mistral's form", partial(_chat, _version(backend)), join="\n\n"
    )
    encoder = piece_encoder(path, model, backend, behaviour) if model else None
    return FastTokenizer(backend, behaviour, roles=roles, chat=chat, encoder=encoder)


def _open(path: Path, model: Model | None) -> tokenizers.Tokenizer:
    if model is not None:
        return bpe_backend(model, path)
    return _open_tekken(path) if path.name == "tekken.json" else open_tokenizer_json(path)


def _open_tekken(path: Path) -> tokenizers.Tokenizer:
    """Special tokens come first, then the vocabulary, cut to the size that the file names."""
    document = read_json(path)
    try:
        config = document["config"]
        room = int(config["default_num_special_tokens"])
        size = int(config["default_vocab_size"]) - room
        tokens = [base64.b64decode(entry["token_bytes"]) for entry in document["vocab"][:size]]
        if len(tokens) < size:
            raise ValueError(f"has {len(tokens)} of {size} tokens")
        special = _tekken_special(document.get("special_tokens"), room)
        pattern = str(config["pattern"])
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
