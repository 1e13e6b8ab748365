"""llama: Llama-2 style SentencePiece, from tokenizer.json or tokenizer.model.

The ids of transformers' LlamaTokenizer with legacy=False:

    'Hello world'         -> [1, 22557, 1526]    (with Mistral's first vocabulary)
    '<s>Hello world'      -> [1, 16230, 1526]    BOS once; no space is put after a special token
    '녕'                  -> [1, 28705, 238, 136, 152]    what has no piece becomes its bytes

Like the fast tokenizer, and unlike the slow one and sentencepiece itself, it puts no second space
before a prompt that begins with one; the type mistral does.

A folder without a chat template gets Llama-2's own form, [INST] and <<SYS>>.
"""

from functools import partial
from pathlib import Path

import tokenizers

from tokenizer_registry.core.chat import ChatTemplate, llama2
from tokenizer_registry.core.errors import TokenizerError
from tokenizer_registry.core.fast import (
    Behaviour,
    FastTokenizer,
    add_roles,
    add_tokens,
    open_tokenizer_json,
    special_id,
)
from tokenizer_registry.core.files import first_of, read_config
from tokenizer_registry.core.pieces import piece_encoder
from tokenizer_registry.core.spm import Model, as_llama, bpe_backend, read_model


def load(
    tokenizer_dir: Path,
    *,
    add_special_tokens: bool = True,
    add_bos_token: bool | None = None,
    add_eos_token: bool | None = None,
    parse_special_tokens: bool = True,
    skip_special_tokens: bool = True,
) -> FastTokenizer:
    """Open a folder with tokenizer.json or tokenizer.model.

    add_special_tokens: False turns BOS and EOS off, whatever else says.
    add_bos_token, add_eos_token: default to tokenizer_config.json, then to True and False.
    parse_special_tokens: '</s>' in a prompt is the token; False: it is four letters.
    skip_special_tokens: special tokens have no text.
    """
    config = read_config(tokenizer_dir)
    (path,) = first_of(tokenizer_dir, ("tokenizer.json",), ("tokenizer.model",))
    model = read_model(path) if path.suffix == ".model" else None
    backend = _open(path, model)
    add_tokens(backend, config.added, tokenizer_dir)
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **config.roles}

    def around(role: str, wanted: bool) -> tuple[int, ...]:
        wanted = wanted and add_special_tokens
        return (special_id(backend, roles, role, tokenizer_dir),) if wanted else ()

    behaviour = Behaviour(
        prefix=around("bos_token", config.flag("add_bos_token", add_bos_token, True)),
        suffix=around("eos_token", config.flag("add_eos_token", add_eos_token, False)),
        parse_special_tokens=parse_special_tokens,
        skip_special_tokens=skip_special_tokens,
    )
    add_roles(backend, roles, config.others)
    own = partial(llama2, bos=roles["bos_token"], eos=roles["eos_token"])
    chat = config.chat_template(roles) or ChatTemplate.built_in(
        "Llama-2's form", lambda messages, _: own(messages)
    )
    encoder = piece_encoder(path, model, backend, behaviour) if model else None
    return FastTokenizer(backend, behaviour, roles=roles, chat=chat, encoder=encoder)


def _open(path: Path, model: Model | None) -> tokenizers.Tokenizer:
    if model is not None:
        return bpe_backend(model, path)
    backend = open_tokenizer_json(path)
    if backend.token_to_id("<0x0A>") is None:
        raise TokenizerError(
            f"{path}: not Llama-2 style (no byte tokens such as <0x0A>); for a byte-level BPE "
            f"such as GPT-2's or Llama 3's use the type gpt2 or llama3"
        )
    as_llama(backend)
    return backend
