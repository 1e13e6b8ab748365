# SPDX-License-Identifier: Apache-2.0
"""Encodes with the library fastokens, where it gives the ids of `tokenizers`: sooner by far.

    encoder = QuickEncoder(backend)
    encoder.prepare()                  # returns at once; the library opens in a thread of its own
    encoder.encode_batch(["Hello"])    # by `tokenizers` until that is done, then by fastokens

Which tokenizers it may encode for says `quick_kinds.py`, and before it does, both libraries encode
a built-in corpus. A text that the two are known to differ on, and one that fastokens raises for,
goes to `tokenizers`. So does everything where fastokens is missing, or ENCODER=tokenizers says so.

fastokens keeps the ids of words for each thread that it encodes in, and a word that it does not
know takes it a nanosecond for each that it does: 5 µs with 5,000, 50 with 50,000. One thread does
it here. It is replaced with what it keeps when a text took long or many were encoded, and a long
text of very many words goes to `tokenizers`.
"""

import ctypes
import logging
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import tokenizers

from trellis.errors import one_line
from trellis.panics import is_panic
from trellis.tokenizers.encoder import BackendEncoder
from trellis.tokenizers.quick_kinds import differs_on, first_difference, why_not

log = logging.getLogger("trellis.tokenizers")

ENCODER = "TRELLIS_ENCODER"
"""Set to `tokenizers`, this variable of the environment keeps fastokens out."""
LONG = 4096
"""Characters of texts that are worth opening the library for, if nobody did before."""
_BRIEF = 2048  # characters that do not wait while others are encoded
_SECONDS_EACH = 2e-6  # that a character waits, about what `tokenizers` takes for it
_KEPT = 1_000_000  # characters after which the thread is replaced, and what it keeps is dropped
_DEAR = 0.4e-6  # seconds a character: what `tokenizers` takes
_MANY = 50_000  # characters of texts whose words are estimated
_LOOK, _OF = 2_000, 20_000  # so many characters of so many are looked at for that
_WORD_EACH = 1e-9  # seconds that a new word takes for each that is known
_WORD = re.compile(r"\w+|[^\w\s]+")
_TOKEN = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
_MERGE = re.compile(rf"\[{_TOKEN},{_TOKEN}\]")


class QuickEncoder:
    """An Encoder: fastokens, with `tokenizers` as the way back. Threads may share it."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self._slow = BackendEncoder(backend)
        self._quick: Any = None
        self._thread: ThreadPoolExecutor | None = None
        self._begun = False
        self._lock = Lock()
        self._encoded = 0

    def prepare(self) -> None:
        """Begin to open the library; returns at once. Later calls do nothing."""
        with self._lock:
            if self._begun:
                return
            self._begun = True
            reason = _unavailable() or why_not(self._backend)
            if reason:
                return self._stay(reason)
            self._thread = ThreadPoolExecutor(1, "encode-quick")
            self._thread.submit(self._open)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Encoder.encode_batch."""
        ids = self._encode(texts)
        return self._slow.encode_batch(texts) if ids is None else ids

    def encode_fragment(self, text: str) -> list[int]:
        """See Encoder.encode_fragment."""
        return self._slow.encode_fragment(text)

    def found_in_text(self) -> Sequence[tokenizers.AddedToken] | None:
        """See Encoder.found_in_text."""
        return self._slow.found_in_text()

    def wait(self) -> bool:
        """Whether fastokens encodes, when it is known."""
        if self._thread is not None:
            self._thread.submit(lambda: None).result()
        return self._quick is not None

    def _open(self) -> None:
        try:
            quick = _open(self._backend)
            different = first_difference(self._slow.encode_batch, quick, self._backend)
        except BaseException as error:
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            return self._stay(f"fastokens: {one_line(error)}")
        if different is not None:
            return self._stay(f"fastokens has other ids for {different[:64]!r}")
        self._quick = quick
        log.info("fastokens encodes prompts, with the ids of tokenizers")

    def _stay(self, reason: str) -> None:
        log.info("tokenizers encodes prompts: %s", reason)

    def _encode(self, texts: Sequence[str]) -> list[list[int]] | None:
        """The ids of each text, None if they are for `tokenizers`."""
        quick = self._quick
        try:
            size = sum(map(len, texts))
            if quick is None:
                if size >= LONG and not self._begun:
                    self.prepare()
                return None
            if any(map(differs_on, texts)) or (size > _MANY and _too_many_words(texts, size)):
                return None
        except (AttributeError, TypeError):  # no strings: `tokenizers` has the error
            return None
        if not self._lock.acquire(timeout=size * _SECONDS_EACH if size > _BRIEF else 0):
            return None
        try:
            return self._encode_in_thread(quick, texts, size)
        except Exception:  # a lone surrogate, for one: `tokenizers` has the error
            return None
        except BaseException as error:
            if not is_panic(error):
                raise
            self._quick = None
            self._stay(f"fastokens panicked: {one_line(error)}")
            return None
        finally:
            self._lock.release()

    def _encode_in_thread(self, quick: Any, texts: Sequence[str], size: int) -> list[list[int]]:
        assert self._thread is not None
        letters = bool(self._backend.encode_special_tokens)
        ids, seconds = self._thread.submit(_encode, quick, texts, letters).result()
        self._encoded += size
        if self._encoded > _KEPT or (size > _BRIEF and seconds > size * _DEAR):
            self._encoded = 0
            self._thread.shutdown(wait=False)
            self._thread = ThreadPoolExecutor(1, "encode-quick")
        return ids


def _encode(quick: Any, texts: Sequence[str], letters: bool) -> tuple[list[list[int]], float]:
    """The ids, and their seconds of CPU; letters: special tokens in a text are letters."""
    began = time.thread_time()
    ids = [quick.encode(text, False, letters).ids for text in texts]
    return ids, time.thread_time() - began


def _too_many_words(texts: Sequence[str], size: int) -> bool:
    """Whether new words would take longer than `tokenizers` does for all, by a tenth of them."""
    looked = (text[at : at + _LOOK] for text in texts for at in range(0, len(text), _OF))
    found = {word for part in looked for word in _WORD.findall(part)}
    words = len(found) * _OF / _LOOK
    return words**2 / 2 * _WORD_EACH > size * _DEAR


def _unavailable() -> str:
    """Why there is no fastokens to encode with; "" if there is."""
    if os.environ.get(ENCODER) == "tokenizers":
        return f"{ENCODER} says so"
    # It reads this when it first encodes: it would start a thread for each core.
    os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")
    try:
        import fastokens  # noqa: F401
    except ImportError as error:
        return f"the package fastokens is missing: {error}"
    return ""


def _open(backend: tokenizers.Tokenizer) -> Any:
    """fastokens' tokenizer of the same file. Raises ValueError for what it does not have."""
    import fastokens

    opened = fastokens.Tokenizer.from_json_str(shortened(backend.to_str()))
    _trim()
    return opened


def shortened(document: str) -> str:
    """A compact tokenizer.json with each merge as one string: less to read, by time and memory.

    "merges":[["a","b"],["Ġ","c"]]  ->  "merges":["a b","Ġ c"]
    """
    start = document.rfind('"merges":[')  # in no token: quotes are escaped there
    if start < 0 or " " in document[start:]:
        return document
    return document[:start] + _MERGE.sub(r'"\1 \2"', document[start:])


def _trim() -> None:
    """Give back the memory that reading took, which glibc would keep: up to 300 MB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
