"""auto: whatever transformers' AutoTokenizer opens, with transformers 4 or 5.

The only type that imports transformers (seconds, and some hundred megabytes with torch beside
it); take a type of its own where there is one. With a tokenizer of the `tokenizers` library,
which is nearly always, encoding and decoding are as in all other types. With one written in
Python, streams are decoded by the tokenizer itself, a few tokens at a time.

    trust_remote_code=true lets the folder's own Python code run: only for folders you trust.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizer_registry.core.chat import ChatTemplate, Template
from tokenizer_registry.core.errors import TokenizerError
from tokenizer_registry.core.fast import Behaviour, FastTokenizer, decoder_kinds, post_processed
from tokenizer_registry.core.files import read_templates
from tokenizer_registry.core.stream import StreamDecoder, TextTable
from tokenizer_registry.core.tokenizer import Tokenizer


def load(
    tokenizer_dir: Path,
    *,
    add_special_tokens: bool = True,
    add_bos_token: bool | None = None,
    parse_special_tokens: bool = True,
    skip_special_tokens: bool = True,
    trust_remote_code: bool = False,
) -> Tokenizer:
    """Open a folder with anything that AutoTokenizer knows.

    add_special_tokens: False turns off BOS, EOS and whatever else the tokenizer puts around.
    add_bos_token: put BOS before every prompt, or never; by default as the tokenizer does.
    parse_special_tokens: special tokens in a prompt are tokens; False: they are letters.
    skip_special_tokens: special tokens have no text.
    trust_remote_code: run Python code from the folder.
    """
    opened = _open(tokenizer_dir, trust_remote_code)
    chat = _chat(opened, tokenizer_dir)
    backend: Any = getattr(opened, "backend_tokenizer", None)
    kinds = decoder_kinds(backend) if backend is not None else set()
    if not kinds & {"ByteLevel", "ByteFallback", "Metaspace"}:
        return PythonTokenizer(opened, chat, add_special_tokens, skip_special_tokens)
    prefix, suffix = post_processed(backend) if add_special_tokens else ((), ())
    if add_bos_token is not None and add_special_tokens:
        if add_bos_token and opened.bos_token_id is None:
            raise TokenizerError(f"{tokenizer_dir}: add_bos_token: there is no bos_token")
        prefix = (opened.bos_token_id,) if add_bos_token else ()
    behaviour = Behaviour(
        prefix=prefix,
        suffix=suffix,
        parse_special_tokens=parse_special_tokens,
        skip_special_tokens=skip_special_tokens,
    )
    roles = {k: str(v) for k, v in opened.special_tokens_map.items() if isinstance(v, str)}
    return FastTokenizer(backend, behaviour, roles=roles, chat=chat)


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
        self._skip = skip_special_tokens

    def encode(self, text: str) -> list[int]:
        """See Tokenizer.encode; a prompt that begins with BOS gets no second one."""
        ids = list(self.opened.encode(text, add_special_tokens=self._add))
        twice = self.bos_id is not None and ids[:2] == [self.bos_id] * 2
        return ids[1:] if twice and self.encode_bare(text)[0] == self.bos_id else ids

    def encode_bare(self, text: str) -> list[int]:
        """See Tokenizer.encode_bare."""
        return list(self.opened.encode(text, add_special_tokens=False))

    def encode_fragment(self, text: str) -> list[int]:
        """See Tokenizer.encode_fragment; a prefix space cannot be told apart here."""
        return self.encode_bare(text)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token's text alone; streams do not use it."""
        return self.text([token]).encode()

    def text(self, ids: Sequence[int]) -> str:
        """The tokenizer's own decode, of ids that it has."""
        known = [token for token in ids if 0 <= token < self.vocab_size]
        return str(
            self.opened.decode(
                known, skip_special_tokens=self._skip, clean_up_tokenization_spaces=False
            )
        )

    def stream_decoder(self) -> StreamDecoder:
        """See Tokenizer.stream_decoder."""
        return WindowDecoder(self)


class WindowDecoder(StreamDecoder):
    """Streams by decoding a few tokens again with each new one, and giving out what is new.

    Text that ends in U+FFFD may be half a character: it waits, for three more tokens at most.
    """

    __slots__ = ("_given", "_held", "_tokenizer", "_window")

    _CONTEXT = 6  # tokens that are decoded again: what a tokenizer's spacing looks back on

    def __init__(self, tokenizer: PythonTokenizer) -> None:
        super().__init__(TextTable(tokenizer.token_bytes, tokenizer.vocab_size), "replace", False)
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._given = ""
        self._held = 0

    def push(self, ids: Iterable[int]) -> str:
        """See StreamDecoder.push."""
        return "".join([self._push_one(token) for token in ids])

    def end(self) -> str:
        """See StreamDecoder.end."""
        self._window = []
        self._given = ""
        self._held = 0
        return ""

    def _push_one(self, token: int) -> str:
        self._window.append(token)
        text = self._tokenizer.text(self._window)
        self._held += 1
        if text.endswith("\ufffd") and self._held < 4:
            return ""
        new = text[len(self._given) :]
        self._held = 0
        self._window = self._window[-self._CONTEXT :]
        self._given = self._tokenizer.text(self._window)
        return new


def _open(folder: Path, trust_remote_code: bool) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise TokenizerError(
            f"tokenizer_type 'auto' needs the package transformers: {error}"
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
