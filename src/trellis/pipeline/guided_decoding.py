# SPDX-License-Identifier: Apache-2.0
"""Guided decoding: what holds an answer to a schema, a grammar or an expression, checked by name.

Every engine gets a guide as `guides/translate.py` writes it: what the libraries do not understand
they ignore, or answer with an error that names nothing.
"""

from collections.abc import Collection, Iterable, Mapping, MutableMapping
from typing import Any

import numpy as np

from trellis.contract.client_inputs import GUIDE, GUIDE_TYPE
from trellis.errors import RequestError
from trellis.guides.limits import GUIDE_BYTES, refused_by
from trellis.guides.translate import Guide, translate

NEED_GUIDE = ("json_schema", "regex", "ebnf_grammar", "structural_tag")
TYPES = ("json", *NEED_GUIDE)
FREE_TEXT = "structural_tag"  # may have text in which a stop word means what it always does
NO_GUIDE = Guide("", "")
SHOWN = 40  # characters of a wrong type


class GuidedDecoding:
    """Translates the guides of requests for a release that has guided decoding."""

    def __init__(self, backend: str) -> None:
        """`backend`: what the engine was configured with; '': nothing."""
        self.backend = backend

    def take(self, sent: MutableMapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """Take both inputs out of `sent`, [rows, 1] each, object: UTF-8 bytes.

        What the engine gets, of the same names, [rows, 1] object: texts; {} for none. Raises
        RequestError naming the input.
        """
        kinds, guides = (_texts(sent.pop(name, None), rows) for name in (GUIDE_TYPE, GUIDE))
        _check_size(guides)
        made = [self._read(*pair) for pair in zip(kinds, guides, strict=True)]
        if all(each == NO_GUIDE for each in made):
            return {}
        columns = zip(*made, strict=True)
        return {
            name: np.array([[text] for text in column], object)
            for name, column in zip((GUIDE_TYPE, GUIDE), columns, strict=True)
        }

    def _read(self, kind: str | None, guide: str | None) -> Guide:
        if (kind is not None or guide) and not self.backend:
            raise RequestError(
                f"{GUIDE if kind is None else GUIDE_TYPE}: this repository was made without guided"
                " decoding; leave it out (SET=guided_decoding_backend:xgrammar)"
            )
        check_guide(kind, guide)
        if kind == "structural_tag":
            raise RequestError(
                f"{GUIDE_TYPE}: releases of this engine read structural_tag in different ways; send"
                " ebnf_grammar"
            )
        return _translated(kind, guide)


def early_end(name: str, token: int, known: Collection[int]) -> RequestError:
    """The error for an id that could end an answer where its guide does not.

    `name`: the client's input. `known`: the ids that end this model's answers.
    """
    ends = ", ".join(map(str, sorted(known))) or "none"
    return RequestError(
        f"{name}: {token} could end the answer in the middle of what {GUIDE_TYPE} holds it to; send"
        f" this model's own ({ends}), or leave it out"
    )


def early_words() -> RequestError:
    """The error for stop words beside a guide."""
    return RequestError(
        f"stop_words: could end the answer in the middle of what {GUIDE_TYPE} holds it to; leave"
        " out one of them"
    )


def check_guide(kind: str | None, guide: str | None) -> None:
    """Raise RequestError, by the input's name, for a guide that no engine would understand."""
    if kind is None and not guide:
        return
    if kind is None:
        raise RequestError(f"{GUIDE_TYPE}: missing beside {GUIDE}; send one of {', '.join(TYPES)}")
    if kind not in TYPES:
        shown = kind if len(kind) <= SHOWN else kind[: SHOWN - 3] + "..."
        raise RequestError(f"{GUIDE_TYPE}: {shown!r} is not known; send one of {', '.join(TYPES)}")
    if kind in NEED_GUIDE and not guide:
        raise RequestError(f"{GUIDE}: missing; {GUIDE_TYPE} {kind} needs it")


def read_guide(arrays: Mapping[str, np.ndarray], row: int) -> Guide:
    """The guide of one row as every engine reads it; NO_GUIDE where none was sent.

    `arrays`: of the two inputs what was sent, [rows, 1] each, object: UTF-8 bytes. Raises
    RequestError naming the input.
    """
    if not row and GUIDE in arrays:
        _check_size(_texts(arrays[GUIDE], len(arrays[GUIDE])))
    kind, guide = (
        None if name not in arrays else _text(arrays[name][row].reshape(-1)[0]) or None
        for name in (GUIDE_TYPE, GUIDE)
    )
    check_guide(kind, guide)
    return _translated(kind, guide)


def _translated(kind: str | None, guide: str | None) -> Guide:
    if kind == "json" and guide:
        raise RequestError(
            f"{GUIDE}: {GUIDE_TYPE} json takes none; leave it out, or send json_schema"
        )
    return translate(kind, guide or "") if kind else NO_GUIDE


def _check_size(guides: Iterable[str | None]) -> None:
    """Raise RequestError for guides of one request that are too large together."""
    size = sum(len(guide) for guide in set(guides) if guide)
    if size > GUIDE_BYTES:
        raise refused_by(f"{size} characters, and guide_bytes is {GUIDE_BYTES}; send less at once")


def _texts(array: np.ndarray | None, rows: int) -> list[str | None]:
    """The text of each row; None where nothing was sent."""
    if array is None:
        return [None] * rows
    return [_text(value) for value in array.reshape(rows, -1)[:, 0].tolist()]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
