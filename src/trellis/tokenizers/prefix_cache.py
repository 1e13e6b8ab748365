# SPDX-License-Identifier: Apache-2.0
"""Ids of prompts that repeat a long beginning, without encoding that beginning again.

    encoder = PrefixEncoder(tokenizer, max_bytes=64 << 20)
    encoder.encode_bare(first)              # == tokenizer.encode_bare(first)
    encoder.encode_bare(first + answer)     # encodes little more than `answer`

A prompt is cut before special tokens, where the tokenizer says that the ids of the parts are those
of the whole (cuts.py), into parts of at least LEAST characters. From its beginning on, so that
prompts with the same beginning have the same parts. A part's ids are looked up by its text, not by
a digest of it: what is found is exact. The last part is not kept, because the next turn goes on
inside it. Prompts that share a system prompt share its parts.
"""

import re
import sys
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from threading import Lock

from trellis.tokenizers.cuts import holds
from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.tokenizer import Tokenizer

LEAST = 256
"""Characters that a part has at least: what is cheaper to encode than to keep."""
_ENTRY_BYTES = 256  # of an entry beside text and ids: array, places in the table


class PrefixEncoder:
    """`encode_bare` of a tokenizer, with the ids of known parts of prompts kept.

    Threads may share it where they may share the tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, max_bytes: int) -> None:
        """
        Args:
            max_bytes: what kept texts and ids may take; 0 keeps none. Those unused for longest
                are dropped first.
        """
        self._tokenizer = tokenizer
        self._max_bytes = max_bytes
        tokens = tokenizer.cut_tokens if max_bytes > 0 else ()
        exact = bool(tokens) and holds(tokenizer.encode_bare, tokens)
        self._cut = re.compile("|".join(map(re.escape, tokens))) if exact else None
        self._kept: OrderedDict[str, array[int]] = OrderedDict()
        self._lock = Lock()
        self.bytes = 0
        """What is kept takes so many bytes."""

    @property
    def exact(self) -> bool:
        """Whether prompts of this tokenizer can be cut; if not, nothing is kept."""
        return self._cut is not None

    def encode_bare(self, text: str) -> list[int]:
        """`tokenizer.encode_bare(text)`. Raises TokenizerError as that does."""
        if self._cut is None or len(text) <= LEAST:
            return self._tokenizer.encode_bare(text)
        parts = list(self._parts(text, self._cut))
        known = self._look_up(parts[:-1])
        missing = [part for part, ids in zip(parts, known, strict=False) if ids is None]
        try:
            # One by one: a batch waits for threads, which a few parts are not worth.
            new = [array("i", self._tokenizer.encode_bare(part)) for part in missing]
            last = self._tokenizer.encode_bare(parts[-1])
        except TokenizerError:
            return self._tokenizer.encode_bare(text)  # its error tells the place in the whole text
        self._keep(missing, new)
        found = iter(new)
        joined: array[int] = array("i")
        for ids in known:
            joined += next(found) if ids is None else ids
        return joined.tolist() + last

    @staticmethod
    def _parts(text: str, cut: re.Pattern[str]) -> Iterator[str]:
        start = 0
        while match := cut.search(text, start + LEAST):
            yield text[start : match.start()]
            start = match.start()
        yield text[start:]

    def _look_up(self, parts: list[str]) -> "list[array[int] | None]":
        with self._lock:
            known = [self._kept.get(part) for part in parts]
            for part, ids in zip(parts, known, strict=True):
                if ids is not None:
                    self._kept.move_to_end(part)
        return known

    def _keep(self, parts: list[str], ids: "list[array[int]]") -> None:
        with self._lock:
            for part, its in zip(parts, ids, strict=True):
                size = _bytes(part, its)
                if part not in self._kept and size <= self._max_bytes:
                    self._kept[part] = its
                    self.bytes += size
            while self.bytes > self._max_bytes:
                self.bytes -= _bytes(*self._kept.popitem(last=False))


def _bytes(part: str, ids: "array[int]") -> int:
    return sys.getsizeof(part) + ids.itemsize * len(ids) + _ENTRY_BYTES
