"""A tokenizer around Hugging Face's `tokenizers` library: byte-level BPE and SentencePiece kinds.

The library turns text into ids. Ids into text is done here, from a table of each token's bytes:

    byte-level     'Ġworld' -> b' world'     'âĤ' -> b'\\xe2\\x82'
    SentencePiece  '▁world' -> b' world'     '<0xE2>' -> b'\\xe2'
    added tokens   '<|im_end|>' -> b'<|im_end|>', or b'' if special ones are skipped

Where it differs from the library's own decoding, on purpose: SentencePiece's invalid bytes become
U+FFFD one by one and their valid neighbours stay, as in sentencepiece itself (the library turns a
whole run of byte tokens into U+FFFD if one is wrong, which no stream can know in time); added
tokens always mean their own letters.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from tokenizer_registry.core.chat import ChatTemplate
from tokenizer_registry.core.errors import TokenizerError
from tokenizer_registry.core.files import AddedToken, guess, read_bytes, read_json
from tokenizer_registry.core.stream import REPLACE_BYTE, REPLACE_RUN
from tokenizer_registry.core.tokenizer import Tokenizer

Encoder = Callable[[Sequence[str]], list[list[int]]]
"""Texts to ids, without BOS and EOS."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Behaviour:
    """What is around the ids of a text, and what becomes of special tokens."""

    prefix: tuple[int, ...] = ()
    """Ids put before every prompt: BOS."""
    suffix: tuple[int, ...] = ()
    """Ids put after it."""
    prefix_once: bool = True
    """A prompt that already begins with the prefix gets no second one."""
    parse_special_tokens: bool = True
    """'<s>' in a prompt is the token, not three letters."""
    skip_special_tokens: bool = True
    """Special tokens have no text."""
    prefix_space_always: bool = False
    """A prompt that begins with a space gets one more, as in sentencepiece itself."""


class FastTokenizer(Tokenizer):
    """`tokenizers.Tokenizer` behind this package's interface.

    encoder: another library that gives the same ids sooner; the backend does all else.
    """

    thread_safe = True

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        behaviour: Behaviour,
        *,
        roles: dict[str, str],
        chat: ChatTemplate | None,
        encoder: Encoder | None = None,
        ends: Sequence[str] = (),
    ) -> None:
        """`ends`: the tokens that end a turn in the type's own chat form, where that is used."""
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = not behaviour.parse_special_tokens
        self.backend = backend
        self._encoder = encoder or self._encode_with_backend
        self.chat = chat
        self.bos_id, self.eos_id, self.pad_id = (
            backend.token_to_id(roles[role]) if role in roles else None
            for role in ("bos_token", "eos_token", "pad_token")
        )
        end_ids = map(backend.token_to_id, ends)
        self.more_end_ids = tuple(token for token in end_ids if token is not None)
        self._prefix = list(behaviour.prefix)
        self._suffix = list(behaviour.suffix)
        self._space_always = behaviour.prefix_space_always
        self._prefix_once = behaviour.prefix_once
        self.skip_special_tokens = behaviour.skip_special_tokens
        self._added = backend.get_added_tokens_decoder()
        self.special_tokens = {
            token_id: str(token.content).encode()
            for token_id, token in self._added.items()
            if token.special
        }
        self.vocab_size = max(backend.get_vocab_size(), max(self._added, default=-1) + 1)
        kind = decoder_kinds(backend)
        self._byte_level = "ByteLevel" in kind
        if not self._byte_level and not kind & {"ByteFallback", "Metaspace"}:
            raise TokenizerError(f"cannot decode exactly with the decoder {sorted(kind)}")
        self._byte_fallback = "ByteFallback" in kind
        self.strip_first_space = bool(kind & {"Strip", "Metaspace"}) and not self._byte_level
        self.decode_errors = REPLACE_RUN if self._byte_level else REPLACE_BYTE
        self._pre_tokenizer = _without_prefix_space(backend)
        self._added_ids = {str(token.content): token_id for token_id, token in self._added.items()}
        longest_first = sorted(self._added_ids, key=len, reverse=True)
        self._added_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def encode(self, text: str) -> list[int]:
        """See Tokenizer.encode. Raises TokenizerError for text with a lone surrogate."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores and outside the GIL."""
        try:
            return [self._finish(ids) for ids in self._encoder(texts)]
        except (RuntimeError, TypeError, UnicodeEncodeError) as error:
            raise _unencodable(texts, error) from error

    def _encode_with_backend(self, texts: Sequence[str]) -> list[list[int]]:
        if self._space_always:
            texts = [" " + text if text[:1] in (" ", "▁") else text for text in texts]
        encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _finish(self, ids: list[int]) -> list[int]:
        prefix = self._prefix
        if prefix and not (self._prefix_once and ids[: len(prefix)] == prefix):
            ids = prefix + ids
        return ids + self._suffix if self._suffix else ids

    def encode_fragment(self, text: str) -> list[int]:
        """The ids of text in the middle of a sequence; special tokens in it are parsed."""
        ids: list[int] = []
        at = 0
        try:
            for match in self._added_pattern.finditer(text):
                ids += self._encode_plain(text[at : match.start()])
                ids.append(self._added_ids[match.group()])
                at = match.end()
            return ids + self._encode_plain(text[at:])
        except (TypeError, UnicodeEncodeError) as error:
            raise _unencodable([text], error) from error

    def _encode_plain(self, text: str) -> list[int]:
        if not text:
            return []
        normalizer = self.backend.normalizer
        if normalizer is not None and not _prepends(normalizer):
            text = normalizer.normalize_str(text)
        model = self.backend.model
        if self._byte_level:
            words = self._pre_tokenizer.pre_tokenize_str(text)
        else:
            words = [(text.replace(" ", "▁"), None)]
        return [token.id for word, _ in words for token in model.tokenize(word)]

    def token_bytes(self, token: int) -> bytes:
        """See Tokenizer.token_bytes."""
        added = self._added.get(token)
        if added is not None:
            left_out = added.special and self.skip_special_tokens
            return b"" if left_out else str(added.content).encode()
        piece = self.backend.id_to_token(token)
        if piece is None:
            return b""
        if self._byte_level:
            return byte_level_bytes(piece)
        match = _BYTE_TOKEN.fullmatch(piece) if self._byte_fallback else None
        if match:
            return bytes([int(match[1], 16)])
        return str(piece).replace("▁", " ").encode()


def open_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    """The library's tokenizer from its own file. Raises TokenizerError naming the file."""
    data = read_bytes(path)
    try:
        return tokenizers.Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{path}: not a tokenizer: {error}{guess(data)}") from error


def open_byte_level(path: Path) -> tokenizers.Tokenizer:
    """A byte-level BPE from tokenizer.json; raises TokenizerError for anything else."""
    backend = open_tokenizer_json(path)
    if decoder_kinds(backend) != {"ByteLevel"}:
        raise TokenizerError(
            f"{path}: not a byte-level BPE (its decoder is {sorted(decoder_kinds(backend))}); "
            f"for Llama-2 style SentencePiece use the type llama"
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


def add_roles(
    backend: tokenizers.Tokenizer, roles: dict[str, str], others: Sequence[str] = ()
) -> None:
    """Make the tokens that play a part, and others, special; add those the vocabulary lacks."""
    special = {str(t.content) for t in backend.get_added_tokens_decoder().values() if t.special}
    wanted = dict.fromkeys([*roles.values(), *others])
    new = [content for content in wanted if content not in special]
    if new:
        backend.add_special_tokens([tokenizers.AddedToken(c, normalized=False) for c in new])


def special_id(backend: tokenizers.Tokenizer, roles: dict[str, str], role: str, where: Path) -> int:
    """The id of a special token that is needed. Raises TokenizerError if there is none."""
    content = roles.get(role)
    token = None if content is None else backend.token_to_id(content)
    if token is None:
        raise TokenizerError(f"{where}: {role} {content!r} is not in the vocabulary")
    return int(token)


def post_processed(backend: tokenizers.Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer's own post-processor puts before and after a text."""
    plain = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start]), tuple(whole[start + len(plain) :])
    return (), ()


def state_of(part: Any) -> dict[str, Any]:
    """The settings of a normalizer, pre-tokenizer or decoder, as in tokenizer.json; {} if none."""
    return {} if part is None else dict(json.loads(part.__getstate__()))


def decoder_kinds(backend: tokenizers.Tokenizer) -> set[str]:
    """The names of the decoder's steps: {'ByteLevel'} or {'Replace', 'ByteFallback', ...}."""
    state = state_of(backend.decoder)
    steps = state.get("decoders", [state] if state else [])
    return {step["type"] for step in steps}


def byte_level_bytes(piece: str) -> bytes:
    """The bytes that GPT-2 writes as letters: 'Ġa' -> b' a'; other letters stand for themselves."""
    try:
        return bytes([BYTE_LETTERS[letter] for letter in piece])
    except KeyError:
        return piece.encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's letter for each byte: the byte itself if it prints, else U+0100 and on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + index): byte for index, byte in enumerate(others)}


BYTE_LETTERS = _byte_alphabet()
"""GPT-2's letters and the bytes they stand for: {'a': 0x61, 'Ġ': 0x20, ...}."""


def _without_prefix_space(backend: tokenizers.Tokenizer) -> Any:
    """A byte-level pre-tokenizer, made not to put a space before a text."""

    def rebuilt(part: Any, state: dict[str, Any]) -> Any:
        if state.get("type") == "ByteLevel":
            return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=state["use_regex"])
        if state.get("type") == "Sequence":
            steps = [rebuilt(part[i], each) for i, each in enumerate(state["pretokenizers"])]
            return pre_tokenizers.Sequence(steps)
        return part

    return rebuilt(backend.pre_tokenizer, state_of(backend.pre_tokenizer))


def _prepends(normalizer: Any) -> bool:
    """Whether a normalizer is the old way to put a space before a text and write it as '▁'."""
    state = state_of(normalizer)
    return any(step["type"] == "Prepend" for step in state.get("normalizers", [state]))


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
