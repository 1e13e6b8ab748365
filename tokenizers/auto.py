# SPDX-License-Identifier: Apache-2.0
"""auto: the type that a folder's files ask for.

A tokenizer.json is read as it says: its ids are those of the library `tokenizers`, and of
transformers 4.57's AutoTokenizer. tekken.json, Meta's and Qwen's rank files and SentencePiece
models are read by the types that own them; so are vocab.json and merges.txt, where the
tokenizer_class of tokenizer_config.json is GPT-2's or Qwen's. What is left, a folder with code of
its own for one, is opened by transformers' AutoTokenizer (seconds, and some hundred megabytes with
torch beside it); if that tokenizer is written in Python, it decodes streams itself, a few tokens at
a time.

    trust_remote_code=true lets the folder's own Python code run: only for folders you trust.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers

from trellis.tokenizers.chat import ChatTemplate, Template
from trellis.tokenizers.decoding import decodes_by_token
from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.fast import open_tokenizer_json
from trellis.tokenizers.files import Config, read_config, read_templates
from trellis.tokenizers.opening import Kind, Options, finish
from trellis.tokenizers.pieces import finish_model
from trellis.tokenizers.ranks import count_ranks
from trellis.tokenizers.registry import load as load_type
from trellis.tokenizers.registry import type_module
from trellis.tokenizers.spm import BPE, UNIGRAM, read_algorithm
from trellis.tokenizers.stream import StreamDecoder, TextTable
from trellis.tokenizers.tokenizer import Tokenizer

# How vocabularies name the tokens that begin and end a text, for files that do not say.
_BEGIN_AND_END = (
    ("<s>", "</s>"),
    ("<|begin_of_text|>", "<|end_of_text|>"),
    ("<bos>", "<eos>"),
    ("<|endoftext|>", "<|endoftext|>"),
)

# A byte-level BPE in two files, and the types that read it for a tokenizer_class.
_MERGES = {"vocab.json", "merges.txt"}
_MERGED_BY = {"GPT2Tokenizer": "gpt2", "Qwen2Tokenizer": "qwen", "Qwen3_5Tokenizer": "qwen"}


def load(
    tokenizer_dir: Path,
    *,
    add_special_tokens: bool = True,
    add_bos_token: bool | None = None,
    parse_special_tokens: bool = True,
    skip_special_tokens: bool = True,
    trust_remote_code: bool = False,
) -> Tokenizer:
    """Open a folder with any tokenizer.

    add_special_tokens: False turns off BOS, EOS and whatever else the tokenizer puts around.
    add_bos_token: put BOS before every prompt, or never; by default as the files say.
    parse_special_tokens: special tokens in a prompt are tokens; False: they are letters.
    skip_special_tokens: special tokens have no text.
    trust_remote_code: run Python code from the folder.
    """
    config = read_config(tokenizer_dir)
    options = Options(
        add_special_tokens=add_special_tokens,
        add_bos_token=add_bos_token,
        parse_special_tokens=parse_special_tokens,
        skip_special_tokens=skip_special_tokens,
    )
    reader = _reader(tokenizer_dir, config)
    if reader is None:
        return _open(tokenizer_dir, config, options, trust_remote_code)
    return reader(options)


def needs_transformers(tokenizer_dir: Path) -> bool:
    """Whether it takes transformers to open this folder, or to say why it cannot be opened."""
    return _reader(tokenizer_dir, read_config(tokenizer_dir)) is None


def _reader(folder: Path, config: Config) -> Callable[[Options], Tokenizer] | None:
    """What opens a folder without transformers, None if nothing does."""
    if _has_code(config):  # it may do what no file says
        return None
    path = folder / "tokenizer.json"
    if path.is_file():
        backend = open_tokenizer_json(path)
        kind = Kind(roles=_roles(backend))
        whole = decodes_by_token(backend)
        return partial(finish, backend, config, kind=kind) if whole else None
    owner = _owner(folder, config)
    if owner is not None:
        return partial(_load_type, owner, folder)
    path = folder / "tokenizer.model"
    return partial(_finish_unigram, path, config) if path.is_file() else None


def _has_code(config: Config) -> bool:
    """Whether tokenizer_config.json names a class of the folder's own."""
    named = config.values.get("auto_map") or {}
    if not isinstance(named, dict):
        path = config.folder / "tokenizer_config.json"
        raise TokenizerError(f"{path}: auto_map must be an object: {named!r}")
    return "AutoTokenizer" in named


def _load_type(owner: str, folder: Path, options: Options) -> Tokenizer:
    given = {name: str(value) for name, value in vars(options).items() if value is not None}
    return load_type(owner, folder, given)


def _finish_unigram(path: Path, config: Config, options: Options) -> Tokenizer:
    return finish_model(path, config, options, Kind(), algorithm=UNIGRAM, second_space=True)


class PythonTokenizer(Tokenizer):
    """A transformers tokenizer that is no more than its encode and decode."""

    def __init__(
        self,
        opened: Any,
        chat: ChatTemplate | None,
        add_special_tokens: bool,
        skip_special_tokens: bool,
    ) -> None:
        self.opened = opened
        self.chat = chat
        self.vocab_size = len(opened)
        self.bos_id = opened.bos_token_id
        self.eos_id = opened.eos_token_id
        self.pad_id = opened.pad_token_id
        self._add = add_special_tokens
        self.skip_special_tokens = skip_special_tokens
        self.special_tokens = {
            int(token): str(text).encode()
            for token, text in zip(opened.all_special_ids, opened.all_special_tokens, strict=True)
        }

    def encode(self, text: str) -> list[int]:
        """See Tokenizer.encode; a prompt that begins with BOS gets no second one."""
        ids = list(self.opened.encode(text, add_special_tokens=self._add))
        twice = self._add and self.bos_id is not None and ids[:2] == [self.bos_id] * 2
        return ids[1:] if twice and self.encode_bare(text)[0] == self.bos_id else ids

    def encode_bare(self, text: str) -> list[int]:
        """See Tokenizer.encode_bare."""
        return list(self.opened.encode(text, add_special_tokens=False))

    def encode_fragment(self, text: str) -> list[int]:
        """See Tokenizer.encode_fragment; a prefix space cannot be told apart here."""
        return list(self.opened.encode(text, add_special_tokens=False))

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token's text alone; streams do not use it."""
        return self.text([token], self.skip_special_tokens).encode()

    def text(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        """The tokenizer's own decode, of ids that it has."""
        known = [token for token in ids if 0 <= token < self.vocab_size]
        return str(
            self.opened.decode(
                known,
                skip_special_tokens=skip_special_tokens,
                clean_up_tokenization_spaces=False,
            )
        )

    def decode(self, ids: Iterable[int], skip_special_tokens: bool | None = None) -> str:
        """See Tokenizer.decode."""
        decoder = self.stream_decoder(skip_special_tokens)
        return decoder.push(ids) + decoder.end()

    def stream_decoder(self, skip_special_tokens: bool | None = None) -> StreamDecoder:
        """See Tokenizer.stream_decoder."""
        skip = self.skip_special_tokens if skip_special_tokens is None else skip_special_tokens
        return WindowDecoder(self, skip)


class WindowDecoder(StreamDecoder):
    """Streams by decoding a few tokens again with each new one, and giving out what is new.

    U+FFFD at the end of a text may be half a character: the last three wait for more tokens, and
    are given out at the end as the tokenizer says them.
    """

    __slots__ = ("_given", "_text", "_window")

    _CONTEXT = 6  # tokens that are decoded again: what a tokenizer's spacing looks back on
    _MOST = 64  # tokens that wait at most
    _HALF = 3  # U+FFFD that an incomplete character can be at most

    def __init__(self, tokenizer: PythonTokenizer, skip_special_tokens: bool) -> None:
        super().__init__(TextTable(tokenizer.token_bytes, tokenizer.vocab_size), "replace")
        self._text = partial(tokenizer.text, skip_special_tokens=skip_special_tokens)
        self._window: list[int] = []
        self._given = 0  # characters of the window's text

    def push(self, ids: Iterable[int]) -> str:
        """See StreamDecoder.push."""
        return "".join([self._push_one(token) for token in ids])

    def end(self) -> str:
        """The text that waited for more tokens."""
        text = self._text(self._window)[self._given :]
        self._window = []
        self._given = 0
        return text

    def _push_one(self, token: int) -> str:
        self._window.append(token)
        text = self._text(self._window)
        half = min(len(text) - len(text.rstrip("\ufffd")), self._HALF, len(text) - self._given)
        if half <= 0 or len(self._window) > self._MOST:
            new = text[self._given :]
            self._window = self._window[-self._CONTEXT :]
            self._given = len(self._text(self._window))
            return new
        new = text[self._given : len(text) - half]
        self._given = len(text) - half
        return new


def _roles(backend: tokenizers.Tokenizer) -> dict[str, str]:
    """What begins and ends a text, by the names of a vocabulary's special tokens; {} if unknown."""
    added = backend.get_added_tokens_decoder().values()
    special = {str(token.content) for token in added if token.special}
    known = (pair for pair in _BEGIN_AND_END if special.issuperset(pair))
    return dict(zip(("bos_token", "eos_token"), next(known, ()), strict=False))


def _owner(folder: Path, config: Config) -> str | None:
    """The type that owns the files of a folder, None if there is none."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    if "tekken.json" in names or any(".model.v" in name for name in names):
        return "mistral"
    if any(name.endswith(".tiktoken") for name in names):
        return "qwen"
    if "spiece.model" in names:
        return "t5" if read_algorithm(folder / "spiece.model") == UNIGRAM else None
    if set(names) >= _MERGES:
        return _MERGED_BY.get(_class_of(config))
    path = folder / "tokenizer.model"
    if not path.is_file():
        return None
    if (count := count_ranks(path)) is not None:
        return "llama4" if count == type_module("llama4").RANKS else "llama3"
    return "llama" if read_algorithm(path) == BPE else None


def _class_of(config: Config) -> str:
    """tokenizer_class, of a slow tokenizer and a fast one the same; '' if it is not named."""
    return str(config.values.get("tokenizer_class") or "").removesuffix("Fast")


def _open(folder: Path, config: Config, options: Options, trust_remote_code: bool) -> Tokenizer:
    """What transformers opens."""
    if not trust_remote_code and _has_code(config):
        raise TokenizerError(
            f"{folder}: its tokenizer is Python code of its own, which runs only if you say so:"
            " SET=trust_remote_code:true, for a folder that you trust"
        )
    merges = all((folder / name).is_file() for name in _MERGES)
    if merges and not (_class_of(config) or (folder / "config.json").is_file()):
        raise TokenizerError(
            f"{folder}: vocab.json and merges.txt do not say how a text is cut into words; name the"
            " tokenizer_class in tokenizer_config.json, or choose the type: gpt2, qwen"
        )
    opened = _auto_tokenizer(folder, trust_remote_code)
    chat = _chat(opened, folder)
    backend: Any = getattr(opened, "backend_tokenizer", None)
    if backend is not None and decodes_by_token(backend):
        roles = {k: str(v) for k, v in opened.special_tokens_map.items() if isinstance(v, str)}
        known = replace(config, roles={**roles, **config.roles}, added=[])
        made = finish(backend, known, options, Kind())
        if _decodes_alike(made, opened):  # a class may do more than its backend
            made.chat = chat or made.chat
            return made
    return PythonTokenizer(opened, chat, options.add_special_tokens, options.skip_special_tokens)


def _decodes_alike(made: Tokenizer, opened: Any) -> bool:
    """Whether a tokenizer of transformers decodes as its backend does."""
    ids = opened.encode(" The quick, brown fox.  It's\n안녕 😀", add_special_tokens=False)
    theirs = opened.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return bool(made.decode(ids, skip_special_tokens=True) == theirs)


def _auto_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise TokenizerError(
            f"{folder}: no file here that a tokenizer_type owns, and 'auto' needs the package"
            f" transformers for others: {error}"
        ) from error
    try:
        return AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # transformers raises nearly anything
        raise TokenizerError(f"{folder}: AutoTokenizer: {error}") from error


def _chat(opened: Any, folder: Path) -> ChatTemplate | None:
    """The templates that transformers found, or else a processor's; rendered as for every type."""
    found = getattr(opened, "chat_template", None)
    if not found:
        templates = read_templates(folder, {})
    else:
        named = found if isinstance(found, dict) else {"default": found}
        templates = {name: Template(source, str(folder)) for name, source in named.items()}
    return ChatTemplate.jinja(templates, opened.special_tokens_map) if templates else None
