# SPDX-License-Identifier: Apache-2.0
"""The last steps of opening a folder, the same for every tokenizer_type.

What the files say comes first; what a type knows of its kind fills in what they leave open; an
option of the user's goes before both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import tokenizers

from trellis.tokenizers.chat import ChatTemplate
from trellis.tokenizers.encoder import Encoder
from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.fast import (
    Behaviour,
    FastTokenizer,
    add_roles,
    add_tokens,
    post_processed,
)
from trellis.tokenizers.files import Config
from trellis.tokenizers.stream import Leading

# Tokens that end a turn wherever a template names them. (<|end|> is none: in gpt-oss' template it
# ends a message, after which the same answer may go on.)
ENDS_OF_TURNS = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|eot|>")


@dataclass(frozen=True)
class Options:
    """The options that nearly every type has; see `load` of any of them."""

    add_special_tokens: bool = True
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    parse_special_tokens: bool = True
    skip_special_tokens: bool = True


@dataclass(frozen=True)
class Kind:
    """What a type knows of its kind, for what the files leave open."""

    roles: Mapping[str, str] = field(default_factory=dict)
    """Which token plays which part, where the vocabulary has it: {"bos_token": "<s>"}."""
    needed: tuple[str, ...] = ()
    """The parts that must be played: a vocabulary without is of another kind."""
    bos: bool = False
    """Whether BOS begins a prompt."""
    eos: bool = False
    """Whether EOS ends a prompt."""
    chat: ChatTemplate | None = None
    """How messages become a prompt where there is no template."""
    ends: tuple[str, ...] = ()
    """The tokens that end a turn in that form, beside EOS."""


def settle(backend: tokenizers.Tokenizer, config: Config, kind: Kind) -> dict[str, str]:
    """Add the tokens that the folder's small files name; which token plays which part.

    Raises TokenizerError for an added token with another id than the files say, and for a
    vocabulary without what the kind needs.
    """
    add_tokens(backend, config.added, config.folder)
    known = {role: token for role, token in kind.roles.items() if _has(backend, token)}
    roles = {**known, **config.roles}
    for role in kind.needed:
        token = roles.get(role, kind.roles.get(role))
        if token is None or not _has(backend, token):
            raise TokenizerError(
                f"{config.folder}: {role} {token!r} is not in the vocabulary; choose the type of"
                " these files, or name the token in tokenizer_config.json"
            )
    add_roles(backend, roles, config.others)
    return roles


def finish(
    backend: tokenizers.Tokenizer,
    config: Config,
    options: Options,
    kind: Kind,
    *,
    roles: dict[str, str] | None = None,
    encoder: Encoder | None = None,
    leading: Leading | None = None,
) -> FastTokenizer:
    """The tokenizer of a folder.

    Args:
        roles: what `settle` gave, if it has been called.
        encoder, leading: see FastTokenizer.

    Raises TokenizerError that names the folder, and the part or the option that is wrong.
    """
    roles = settle(backend, config, kind) if roles is None else roles
    before, after = post_processed(backend)
    behaviour = Behaviour(
        prefix=_around("bos", before, backend, roles, config, options, kind.bos),
        suffix=_around("eos", after, backend, roles, config, options, kind.eos),
        parse_special_tokens=options.parse_special_tokens,
        skip_special_tokens=options.skip_special_tokens,
    )
    template = config.chat_template(roles)
    made = FastTokenizer(
        backend,
        behaviour,
        roles=roles,
        chat=template or kind.chat,
        encoder=encoder,
        leading=leading,
        where=str(config.folder),
    )
    ids = {text.decode(errors="replace"): token for token, text in made.special_tokens.items()}
    made.more_end_ids = tuple(ids[end] for end in _ends_of_turns(config, kind) if end in ids)
    sources = [template.source for template in config.templates.values()]
    made.chat_tokens = tuple(text for text in ids if any(text in source for source in sources))
    return made


def _ends_of_turns(config: Config, kind: Kind) -> list[str]:
    """The tokens that end a turn, in the folder's templates or else in the type's own form."""
    if not config.templates:
        return list(kind.ends)
    sources = [template.source for template in config.templates.values()]
    known = dict.fromkeys((*kind.ends, *ENDS_OF_TURNS))
    return [token for token in known if any(token in source for source in sources)]


def _around(
    which: str,
    declared: tuple[int, ...],
    backend: tokenizers.Tokenizer,
    roles: Mapping[str, str],
    config: Config,
    options: Options,
    default: bool,
) -> tuple[int, ...]:
    """The ids before (`bos`) or after (`eos`) a prompt: option, config, post-processor, kind."""
    name = f"add_{which}_token"
    wanted = config.flag(name, getattr(options, name), bool(declared) or default)
    if not wanted or not options.add_special_tokens:
        return ()
    role = f"{which}_token"
    content = roles.get(role)
    token = None if content is None else backend.token_to_id(content)
    if declared and (token is None or token in declared):
        return declared
    if token is None:
        raise TokenizerError(
            f"{config.folder}: {name} is true, but there is no {role}; name it in"
            f" tokenizer_config.json, or set {name}:false"
        )
    return (int(token),)


def _has(backend: tokenizers.Tokenizer, token: str) -> bool:
    return backend.token_to_id(token) is not None
