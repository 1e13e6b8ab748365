# SPDX-License-Identifier: Apache-2.0
"""Keys that join what the ensemble keeps apart.

Triton gives `postprocessing` nothing but the engine's tensors, so each row carries a key from
`preprocessing` through the engine. The low 16 bits are left to the engine: it adds the index of
the sequence where one prompt has several.
"""

import itertools
import secrets

import numpy as np

SEQUENCE_BITS = 16


class StreamKeys:
    """Unique UINT64 keys, from a random start so that a restarted process repeats none.

    >>> keys = StreamKeys()
    >>> keys.take(3).shape
    (3, 1)
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(secrets.randbits(40))

    def take(self, rows: int) -> np.ndarray:
        """`rows` new keys, [rows, 1] uint64."""
        mask = (1 << (64 - SEQUENCE_BITS)) - 1
        keys = [(next(self._numbers) & mask) << SEQUENCE_BITS for _ in range(rows)]
        return np.array(keys, np.uint64).reshape(rows, 1)
