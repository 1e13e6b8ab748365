# SPDX-License-Identifier: Apache-2.0
"""What turns texts into ids behind a tokenizer: the library `tokenizers`, or another one."""

from collections.abc import Sequence
from typing import Protocol

import tokenizers

from trellis.tokenizers.cuts import acts_by_piece
from trellis.tokenizers.fragments import fragment_backend


class Encoder(Protocol):
    """Texts to ids, without BOS and EOS: another library than `tokenizers`."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""

    def encode_fragment(self, text: str) -> list[int]:
        """The ids of text in the middle of a sequence."""

    def found_in_text(self) -> Sequence[tokenizers.AddedToken] | None:
        """The added tokens that are found in the raw text, before anything else is done.

        None if what stands between two of them is not encoded by itself.
        """


class BackendEncoder:
    """Encodes with `tokenizers`.

    second_space: a text that begins with a space gets one more, as in sentencepiece.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, second_space: bool = False) -> None:
        self._backend = backend
        self._second_space = second_space
        self._fragments: tokenizers.Tokenizer | None = None

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        if self._second_space:
            texts = [" " + text if text[:1] in (" ", "▁") else text for text in texts]
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_fragment(self, text: str) -> list[int]:
        """The ids of text in the middle of a sequence."""
        if self._fragments is None:  # few servers need it
            self._fragments = fragment_backend(self._backend)
        return list(self._fragments.encode(text, add_special_tokens=False).ids)

    def found_in_text(self) -> Sequence[tokenizers.AddedToken] | None:
        """See Encoder.found_in_text."""
        added = self._backend.get_added_tokens_decoder()
        found = [added[token] for token in sorted(added) if not added[token].normalized]
        return found if acts_by_piece(self._backend) else None
