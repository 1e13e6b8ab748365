# SPDX-License-Identifier: Apache-2.0
"""Encoding with the sentencepiece library: the model's own words, and sooner than `tokenizers`.

The library normalizes as the model says, and puts '▁' before every text it is given. A prompt with
special tokens in it is cut there first; what comes after one is in the middle of a sequence:

    'Hello'      -> '▁Hello'
    '<s>Hello'   -> <s> | 'Hello'     (legacy: '▁Hello')
    ' Hello'     -> '▁Hello' (llama), '▁▁Hello' (mistral, and legacy)
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tokenizers

from trellis.tokenizers.encoder import BackendEncoder, Encoder
from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.fast import FastTokenizer
from trellis.tokenizers.files import Config, read_bytes
from trellis.tokenizers.opening import Kind, Options, finish, settle
from trellis.tokenizers.spm import (
    BPE,
    NORMAL,
    UNIGRAM,
    USER_DEFINED,
    Model,
    bpe_backend,
    read_model,
    unigram_backend,
)

# normalizer_spec { add_dummy_prefix: false }, or true: merged into a model behind its own.
_NO_DUMMY_PREFIX, _DUMMY_PREFIX = b"\x1a\x02\x18\x00", b"\x1a\x02\x18\x01"


def piece_encoder(
    path: Path,
    model: Model,
    backend: tokenizers.Tokenizer,
    *,
    parse_special_tokens: bool,
    second_space: bool,
    legacy: bool = False,
) -> Encoder:
    """An encoder of the model at `path`: `backend` where the library is missing and not needed.

    Args:
        backend: the `tokenizers` equivalent, which knows the added tokens.
        parse_special_tokens: special tokens in a text are tokens.
        second_space: a text that begins with a space gets '▁' before it too.
        legacy: what comes after a special token gets '▁' before it too.

    Raises TokenizerError where the model needs the library and it is missing.
    """
    if find_spec("sentencepiece") is None:
        if model.needs_library:
            raise TokenizerError(
                f"{path}: its normalizer or its user-defined pieces need the package sentencepiece;"
                " install it"
            )
        doubled = second_space and model.add_dummy_prefix and not legacy
        return BackendEncoder(backend, second_space=doubled)
    own = {piece for piece, kind in zip(model.pieces, model.kinds, strict=True) if _finds(kind)}
    special = [
        token
        for token in backend.get_added_tokens_decoder().values()
        if str(token.content) not in own
    ]
    parsed = [token for token in special if parse_special_tokens or not token.special]
    return PieceEncoder(
        read_bytes(path) + (_DUMMY_PREFIX if model.add_dummy_prefix else _NO_DUMMY_PREFIX),
        special=_Finder(special, backend),
        parsed=_Finder(parsed, backend),
        second_space=second_space or legacy or model.remove_extra_whitespaces,
        legacy=legacy,
        spaces_lost=model.remove_extra_whitespaces,
    )


def _finds(kind: int) -> bool:
    """Whether the library itself finds pieces of this kind in a text."""
    return kind in (NORMAL, USER_DEFINED)


class _Finder:
    """Cuts a text at added tokens: 'a<s>b' -> [('a', 1), ('b', None)]."""

    def __init__(self, added: Sequence[Any], backend: tokenizers.Tokenizer) -> None:
        self.added = added
        self._ids = {str(token.content): backend.token_to_id(token.content) for token in added}
        longest_first = sorted(added, key=lambda token: len(token.content), reverse=True)
        self.pattern = re.compile("|".join(map(_pattern, longest_first)) or "(?!)")

    def __call__(self, text: str) -> list[tuple[str, int | None]]:
        """The texts between added tokens, and the token after each."""
        cut: list[tuple[str, int | None]] = []
        at = 0
        for match in self.pattern.finditer(text):
            found = match[0]
            token = self._ids.get(found)
            if token is None:  # with white space that belongs to it
                ways = (found.lstrip(), found.rstrip(), found.strip())
                token = next(self._ids[way] for way in ways if way in self._ids)
            cut.append((text[at : match.start()], token))
            at = match.end()
        return [*cut, (text[at:], None)]


def _pattern(token: Any) -> str:
    """A regular expression for an added token, with the white space that it takes along.

    No groups: plain words are what the library `re` searches soonest.
    """
    pattern = re.escape(str(token.content))
    if token.single_word:
        pattern = rf"(?<!\w){pattern}(?!\w)"
    return (r"\s*" if token.lstrip else "") + pattern + (r"\s*" if token.rstrip else "")


class PieceEncoder:
    """Texts to ids, without BOS or EOS. See `piece_encoder`."""

    def __init__(
        self,
        model: bytes,
        *,
        special: _Finder,
        parsed: _Finder,
        second_space: bool,
        legacy: bool,
        spaces_lost: bool,
    ) -> None:
        """spaces_lost: the model takes white space off the ends of a text."""
        import sentencepiece

        self._whole: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._middle: Any = sentencepiece.SentencePieceProcessor(
            model_proto=model + _NO_DUMMY_PREFIX
        )
        self._special = special
        self._parsed = parsed
        self._prefixed = () if second_space else (" ", "▁")
        self._legacy = legacy
        self._spaces_lost = spaces_lost

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, on all cores. Raises RuntimeError for a lone surrogate."""
        if len(texts) == 1 or any(map(self._parsed.pattern.search, texts)):
            return [self._encode(text) for text in texts]
        has_own = [bool(self._prefixed) and text.startswith(self._prefixed) for text in texts]
        if not any(has_own):
            ids: list[list[int]] = self._whole.encode(texts)
            return ids
        pairs = list(zip(texts, has_own, strict=True))
        whole = iter(self._whole.encode([text for text, own in pairs if not own]))
        middle = iter(self._middle.encode([text for text, own in pairs if own]))
        return [next(middle if own else whole) for own in has_own]

    def encode_fragment(self, text: str) -> list[int]:
        """The ids of text in the middle of a sequence; special tokens in it are parsed."""
        ids: list[int] = []
        for between, token in self._special(text):
            ids += self._after(between) if self._spaces_lost else self._middle.encode(between)
            ids += () if token is None else (token,)
        return ids

    def found_in_text(self) -> Sequence[tokenizers.AddedToken]:
        """See Encoder.found_in_text: the library gets what stands between them, by itself."""
        return self._parsed.added

    def _encode(self, text: str) -> list[int]:
        (first, token), *others = self._parsed(text)
        ids = self._beginning(first)
        for after, following in others:
            assert token is not None
            ids.append(token)
            ids += self._after(after)
            token = following
        return ids

    def _after(self, text: str) -> list[int]:
        """The ids of text behind a special token."""
        whole = self._legacy or (self._spaces_lost and text.startswith(" "))
        ids: list[int] = (self._whole if whole else self._middle).encode(text)
        return ids

    def _beginning(self, text: str) -> list[int]:
        starts = self._prefixed and text.startswith(self._prefixed)
        ids: list[int] = (self._middle if starts else self._whole).encode(text)
        return ids


def finish_model(
    path: Path,
    config: Config,
    options: Options,
    kind: Kind,
    *,
    algorithm: int = BPE,
    extra: Sequence[str] = (),
    second_space: bool = False,
    legacy: bool = False,
) -> FastTokenizer:
    """The tokenizer of a SentencePiece model; see `piece_encoder` and `opening.finish`.

    Args:
        algorithm: the one that the model must be of, BPE or UNIGRAM.
        extra: special tokens that follow the vocabulary.
    """
    model = read_model(path)
    model.add_dummy_prefix = config.flag("add_prefix_space", None, model.add_dummy_prefix)
    if algorithm == UNIGRAM:
        backend = unigram_backend(model, path, list(extra))
    else:
        backend = bpe_backend(model, path, legacy=legacy)
    kind = replace(kind, roles={**kind.roles, **model.roles})
    roles = settle(backend, config, kind)
    encoder = piece_encoder(
        path,
        model,
        backend,
        parse_special_tokens=options.parse_special_tokens,
        second_space=second_space,
        legacy=legacy,
    )
    return finish(
        backend, config, options, kind, roles=roles, encoder=encoder, leading=model.leading
    )
