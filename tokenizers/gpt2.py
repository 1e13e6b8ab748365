"""gpt2: byte-level BPE, from tokenizer.json, or vocab.json with merges.txt.

    'Hello world'                      -> [15496, 995]
    'Hello world', add_bos_token=true  -> [50256, 15496, 995]

`add_bos_token` really prepends BOS, as transformers' slow tokenizer does and its fast one does
not: once, so that a chat template which writes <|endoftext|> itself does not have it twice.
OpenAI's own names for the files, encoder.json and vocab.bpe, do as well.
"""

from pathlib import Path

from tokenizers import pre_tokenizers

from tokenizer_registry.core.fast import (
    Behaviour,
    FastTokenizer,
    add_roles,
    add_tokens,
    open_bpe,
    open_byte_level,
    post_processed,
    special_id,
)
from tokenizer_registry.core.files import (
    first_of,
    read_config,
)


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
    paths = first_of(
        tokenizer_dir,
        ("tokenizer.json",),
        ("vocab.json", "merges.txt"),
        ("encoder.json", "vocab.bpe"),
    )
    if len(paths) == 1:
        backend = open_byte_level(paths[0])
        roles = dict(config.roles)
    else:
        backend = open_bpe(paths[0], paths[1])
        space = config.flag("add_prefix_space", None, False)
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
        roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
        roles |= config.roles
    add_tokens(backend, config.added, tokenizer_dir)
    add_roles(backend, roles, config.others)

    prefix, suffix = post_processed(backend)
    wanted = config.flag("add_bos_token", add_bos_token, bool(prefix))
    prefix = (special_id(backend, roles, "bos_token", tokenizer_dir),) if wanted else ()
    behaviour = Behaviour(
        prefix=prefix if add_special_tokens else (),
        suffix=suffix if add_special_tokens else (),
        parse_special_tokens=parse_special_tokens,
        skip_special_tokens=skip_special_tokens,
    )
    return FastTokenizer(backend, behaviour, roles=roles, chat=config.chat_template(roles))
