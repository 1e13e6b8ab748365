# SPDX-License-Identifier: Apache-2.0
"""A tokenizer around Hugging Face's `tokenizers` library: byte-level BPE and SentencePiece kinds.

The library turns text into ids, as the file says, or another one that has the same ids sooner: see
`quick.py`. Ids into text is done here, from a table of each token's bytes: see `decoding.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import decoders, models

from trellis.tokenizers.chat import ChatTemplate
from trellis.tokenizers.cuts import cut_tokens
from trellis.tokenizers.decoding import decoder_kinds, read_decoder
from trellis.tokenizers.encoder import Encoder
from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.files import AddedToken, guess, read_bytes, read_json
from trellis.tokenizers.quick import QuickEncoder
from trellis.tokenizers.stream import Leading
from trellis.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class Behaviour:
    """What is around the ids of a text, and what becomes of special tokens."""

    prefix: tuple[int, ...] = ()
    """Ids put before every prompt that does not begin with them: BOS."""
    suffix: tuple[int, ...] = ()
    """Ids put after it."""
    parse_special_tokens: bool = True
    """'<s>' in a prompt is the token, not three letters."""
    skip_special_tokens: bool = True
    """Special tokens have no text."""


class FastTokenizer(Tokenizer):
    """`tokenizers.Tokenizer` behind this package's interface."""

    thread_safe = True
    chat_tokens: tuple[str, ...] = ()
    """Added tokens that the chat template names."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        behaviour: Behaviour,
        *,
        roles: dict[str, str],
        chat: ChatTemplate | None,
        encoder: Encoder | None = None,
        leading: Leading | None = None,
        where: str = "tokenizer",
    ) -> None:
        """
        Args:
            roles: which token plays which part, {"bos_token": "<s>", ...}.
            encoder: another library that encodes as the files say; the backend does all else.
            leading: which spaces at the start of a text are the tokenizer's own; None: those that
                the backend's decoder leaves out.
            where: the file, for errors.

        Raises TokenizerError for a decoder that does not say what one token adds to a text.
        """
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = not behaviour.parse_special_tokens
        self.backend = backend
        self._encoder = encoder or QuickEncoder(backend)
        self.chat = chat
        self.bos_id, self.eos_id, self.pad_id = (
            backend.token_to_id(roles[role]) if role in roles else None
            for role in ("bos_token", "eos_token", "pad_token")
        )
        self._prefix = list(behaviour.prefix)
        self._suffix = list(behaviour.suffix)
        self.skip_special_tokens = behaviour.skip_special_tokens
        self._decoding = read_decoder(backend, where)
        self.decode_errors = self._decoding.errors
        self.leading = self._decoding.leading if leading is None else leading
        added = backend.get_added_tokens_decoder()
        self._added = {
            token_id: self._added_bytes(token_id, str(token.content))
            for token_id, token in added.items()
        }
        self.special_tokens = {
            token_id: self._added[token_id] for token_id, token in added.items() if token.special
        }
        ids = set(backend.get_vocab(with_added_tokens=True).values())
        self.vocab_size = 1 + max(ids, default=-1)
        self.text_vocab_size = 1 + max(ids - self._added.keys(), default=-1)

    def prepare(self) -> None:
        """See Tokenizer.prepare."""
        if isinstance(self._encoder, QuickEncoder):
            self._encoder.prepare()

    def encode(self, text: str) -> list[int]:
        """See Tokenizer.encode. Raises TokenizerError for text with a lone surrogate."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores and outside the GIL."""
        try:
            return [self._finish(ids) for ids in self._encoder.encode_batch(texts)]
        except (RuntimeError, TypeError, UnicodeEncodeError) as error:
            raise _unencodable(texts, error) from error

    def encode_bare(self, text: str) -> list[int]:
        """See Tokenizer.encode_bare."""
        try:
            return self._encoder.encode_batch([text])[0]
        except (RuntimeError, TypeError, UnicodeEncodeError) as error:
            raise _unencodable([text], error) from error

    @cached_property
    def cut_tokens(self) -> tuple[str, ...]:
        """See Tokenizer.cut_tokens."""
        found = self._encoder.found_in_text()
        if found is None:
            return ()
        ends = (self._added[token].decode() for token in self.end_ids if token in self._added)
        preferred = (*self.chat_tokens, *ends)
        return cut_tokens(found, not self.backend.encode_special_tokens, preferred)

    def _finish(self, ids: list[int]) -> list[int]:
        prefix = self._prefix
        if prefix and ids[: len(prefix)] != prefix:
            ids = prefix + ids
        return ids + self._suffix if self._suffix else ids

    def encode_fragment(self, text: str) -> list[int]:
        """The ids of text in the middle of a sequence; special tokens in it are parsed."""
        try:
            return self._encoder.encode_fragment(text)
        except (RuntimeError, TypeError, UnicodeEncodeError) as error:
            raise _unencodable([text], error) from error

    def token_bytes(self, token: int) -> bytes:
        """See Tokenizer.token_bytes."""
        if self.skip_special_tokens and token in self.special_tokens:
            return b""
        added = self._added.get(token)
        if added is not None:
            return added
        piece = self.backend.id_to_token(token)
        return b"" if piece is None else self._decoding.piece_bytes(piece)

    def _added_bytes(self, token: int, content: str) -> bytes:
        """The bytes of an added token, which may be a piece of the vocabulary as well."""
        if self.backend.model.id_to_token(token) == content:
            return self._decoding.piece_bytes(content)
        return self._decoding.added_bytes(content)


def open_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    """The library's tokenizer from its own file. Raises TokenizerError naming the file."""
    data = read_bytes(path)
    try:
        backend = tokenizers.Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{path}: not a tokenizer: {error}{guess(data)}") from error
    _check_found(backend, path)
    return backend


def _check_found(backend: tokenizers.Tokenizer, where: Path) -> None:
    """Raise TokenizerError for an added token of which the normalizer leaves nothing.

    The library finds it at every place of a text, and never comes to an end.
    """
    if backend.normalizer is None:
        return
    for number, token in backend.get_added_tokens_decoder().items():
        if token.normalized and not backend.normalizer.normalize_str(str(token.content)):
            raise TokenizerError(
                f"{where}: the normalizer leaves nothing of the added token"
                f" {str(token.content)!r} ({number}), so that no text could be encoded; such a"
                ' token needs "normalized": false'
            )


def open_byte_level(path: Path) -> tokenizers.Tokenizer:
    """A byte-level BPE from tokenizer.json; raises TokenizerError for anything else."""
    backend = open_tokenizer_json(path)
    if "ByteLevel" not in decoder_kinds(backend):
        raise TokenizerError(
            f"{path}: not a byte-level BPE (its decoder: {', '.join(decoder_kinds(backend))}); use"
            " the type auto, which takes a tokenizer.json of any kind"
        )
    return backend


def open_bpe(vocab: Path, merges: Path) -> tokenizers.Tokenizer:
    """A byte-level BPE from GPT-2's two files, which must fit each other; no pre-tokenizer yet."""
    ids = read_json(vocab)
    if not isinstance(ids, dict) or not all(isinstance(token, int) for token in ids.values()):
        raise TokenizerError(f"{vocab}: must hold an object of token: id")
    text = read_bytes(merges)
    try:
        lines = text.decode().split("\n")
        pairs = [_pair(line) for line in lines if line and not line.startswith("#version")]
        model = models.BPE(vocab=ids, merges=pairs)
        _check_whole(ids, pairs)
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(
            f"{merges}: does not fit {vocab.name}: {error}{guess(text)}"
        ) from error
    backend = tokenizers.Tokenizer(model)
    backend.decoder = decoders.ByteLevel()
    return backend


def _check_whole(vocab: dict[str, int], pairs: list[tuple[str, str]]) -> None:
    """Raise ValueError if many tokens are made by no merge: the list has been cut short."""
    made = {left + right for left, right in pairs}
    orphans = [token for token in vocab if len(token) > 1 and token not in made]
    if len(orphans) > max(100, len(vocab) // 10):
        raise ValueError(
            f"{len(orphans)} of its {len(vocab)} tokens are made by no merge, "
            f"such as {orphans[-1]!r}: is the file cut short?"
        )


def _pair(line: str) -> tuple[str, str]:
    left, _, right = line.rstrip("\r").partition(" ")
    if not left or not right or " " in right:
        raise ValueError(f"a line must hold two tokens: {line!r}")
    return left, right


def add_tokens(backend: tokenizers.Tokenizer, added: Sequence[AddedToken], where: Path) -> None:
    """Add tokens in the order given; raise TokenizerError if one gets another id than its own."""
    library_tokens = [
        tokenizers.AddedToken(
            token.content,
            single_word=token.single_word,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=token.normalized,
            special=token.special,
        )
        for token in added
    ]
    backend.add_tokens(library_tokens)
    for token in added:
        got = backend.token_to_id(token.content)
        if token.id is not None and got != token.id:
            raise TokenizerError(
                f"{where}: the added token {token.content!r} has the id {token.id}, but after the "
                f"vocabulary and the tokens before it comes {got}"
            )
    _check_found(backend, where)


def add_roles(
    backend: tokenizers.Tokenizer, roles: dict[str, str], others: Sequence[str] = ()
) -> None:
    """Make the tokens that play a part, and others, special; add those the vocabulary lacks."""
    special = {str(t.content) for t in backend.get_added_tokens_decoder().values() if t.special}
    wanted = dict.fromkeys([*roles.values(), *others])
    new = [content for content in wanted if content not in special]
    if new:
        backend.add_special_tokens([tokenizers.AddedToken(c, normalized=False) for c in new])


def post_processed(backend: tokenizers.Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer's own post-processor puts before and after a text."""
    plain = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start]), tuple(whole[start + len(plain) :])
    return (), ()


def _unencodable(texts: Sequence[str], error: Exception) -> TokenizerError:
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            return TokenizerError(f"text {index} must be a string, not {type(text).__name__}")
        for at, letter in enumerate(text):
            if "\ud800" <= letter <= "\udfff":
                return TokenizerError(
                    f"text {index} has a lone surrogate, {letter!r}, at {at}: it is no Unicode text"
                )
    return TokenizerError(str(error))
