# SPDX-License-Identifier: Apache-2.0
"""The tokenizer's folder, for a library that needs it to hold an answer to a guide.

Ids go in and come out all the same. A library reads the folder with `transformers`, whatever
`TOKENIZER=` names, so it gets the folder only if that makes the same ids of a text.
"""

import logging
from typing import NamedTuple

from trellis.engine_host.engines.engine import TOKENIZER_SAMPLE, EngineSettings

log = logging.getLogger("trellis.engine")


class LibraryTokenizer(NamedTuple):
    """What a library gets: a folder and the id that ends its guides; or why it gets none."""

    folder: str = ""
    end_id: int = -1
    missing: str = ""


def library_tokenizer(settings: EngineSettings) -> LibraryTokenizer:
    """Try the folder as a library would. Never raises: an engine loads without it, too."""
    try:
        return _read(settings)
    except Exception as error:  # a folder may hold anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return _missing(f"transformers cannot read it ({reason})")


def _read(settings: EngineSettings) -> LibraryTokenizer:
    if settings.tokenizer is None:
        return _missing("there is none")
    from transformers import AutoTokenizer

    folder = str(settings.tokenizer)
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    ids = tokenizer.encode(TOKENIZER_SAMPLE, add_special_tokens=False)
    if not _within(list(ids), list(settings.tokenizer_sample)):
        return _missing("transformers makes other ids of a text than the tokenizer_type does")
    if tokenizer.eos_token_id is None:
        return _missing("it names no token that ends an answer (eos_token)")
    return LibraryTokenizer(folder, int(tokenizer.eos_token_id))


def _missing(why: str) -> LibraryTokenizer:
    log.warning("guided decoding is rejected: the library cannot use the tokenizer: %s", why)
    return LibraryTokenizer(missing=why)


def _within(part: list[int], whole: list[int]) -> bool:
    """Whether `part` is in `whole`, which may have special tokens around it."""
    starts = range(len(whole) - len(part) + 1)
    return bool(part) and any(whole[at : at + len(part)] == part for at in starts)
