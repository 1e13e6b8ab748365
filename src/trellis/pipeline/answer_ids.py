# SPDX-License-Identifier: Apache-2.0
"""The ids of one sequence in an engine's answer, without what only fills its array."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trellis.tokenizers import Tokenizer


def padding_of(tokenizer: "Tokenizer") -> frozenset[int | None]:
    """What fills the end of a row where the release returns no lengths (0.5.0)."""
    return frozenset((-1, tokenizer.eos_id, tokenizer.pad_id))


def without_padding(
    ids: list[int], length: int | None, padding: frozenset[int | None]
) -> list[int]:
    """The first `length` ids; without a length, all up to the padding at the end.

    >>> without_padding([5, 6, 0, 0], 2, frozenset()), without_padding([5, 6, -1], None, {-1})
    ([5, 6], [5, 6])
    """
    if length is not None:
        return ids if length == len(ids) else ids[:length]
    while ids and ids[-1] in padding:
        ids.pop()
    return ids
