# SPDX-License-Identifier: Apache-2.0
"""Lists of ids to the tensors of the contract, padded to the longest row of a request."""

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trellis.errors import RequestError
from trellis.panics import guarded
from trellis.tokenizers import to_word_list

if TYPE_CHECKING:
    from trellis.tokenizers import Tokenizer


def padded_ids(rows: list[list[int]], pad_id: int) -> np.ndarray:
    """[rows, longest] int32; the lengths travel in a tensor of their own.

    >>> padded_ids([[1, 2, 3], [4]], 0).tolist()
    [[1, 2, 3], [4, 0, 0]]
    """
    if len(rows) == 1:
        return np.frombuffer(array("i", rows[0]), np.int32)[None]  # a third less than np.array
    padded = np.full((len(rows), max(map(len, rows))), max(pad_id, 0), np.int32)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def filled_up(rows: list[list[int]]) -> np.ndarray:
    """[rows, longest] int32, shorter rows filled up with -1.

    >>> filled_up([[1, 2], [3], []]).tolist()
    [[1, 2], [3, -1], [-1, -1]]
    """
    filled = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    for index, row in enumerate(rows):
        filled[index, : len(row)] = row
    return filled


def padded_words(
    tokenizer: "Tokenizer", rows: list[list[str]], more: Sequence[list[int]] = ()
) -> np.ndarray:
    """[rows, 2, longest] int32: flat ids, and the offsets where each sequence ends.

    `more`: for each row, ids that are sequences of their own.
    """
    lists = []
    for index, row in enumerate(rows):
        sequences = [ids for word in row for ids in guarded(tokenizer.word_ids, word)]
        sequences += [[token] for token in (more[index] if more else ())]
        lists.append(to_word_list(sequences))
    longest = max(words.shape[-1] for words in lists)
    padded = np.zeros((len(lists), 2, longest), np.int32)
    padded[:, 1, :] = -1
    for index, words in enumerate(lists):
        padded[index, :, : words.shape[-1]] = words
    return padded


def embedding_bias(
    tokenizer: "Tokenizer", rows: list[list[tuple[str, float]]], vocab_size: int
) -> np.ndarray:
    """[rows, vocab_size] float32: the weight of a word on every id that can spell it."""
    bias = np.zeros((len(rows), vocab_size), np.float32)
    for index, pairs in enumerate(rows):
        for word, weight in pairs:
            ids = {token for sequence in guarded(tokenizer.word_ids, word) for token in sequence}
            if not ids:
                raise RequestError(f"embedding_bias_words: {word!r} has no tokens")
            bias[index, sorted(ids)] += weight
    return bias
