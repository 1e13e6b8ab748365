# SPDX-License-Identifier: Apache-2.0
"""Keys that join what the ensemble keeps apart.

Triton gives `postprocessing` nothing but the engine's tensors, so each row carries a key from
`preprocessing` through the engine. The low 16 bits are left to the engine: it adds the index of
the sequence where one prompt has several.
"""

import secrets

import numpy as np

SEQUENCE_BITS = 16


class StreamKeys:
    """UINT64 keys of 48 random bits: who has seen some cannot name another stream's.

    Beside a thousand streams in flight one request in 2**38 gets a key that is in use.

    >>> keys = StreamKeys()
    >>> keys.take(3).shape
    (3, 1)
    """

    def take(self, rows: int) -> np.ndarray:
        """`rows` new keys, [rows, 1] uint64."""
        bits = 64 - SEQUENCE_BITS
        keys = [secrets.randbits(bits) << SEQUENCE_BITS for _ in range(rows)]
        return np.array(keys, np.uint64).reshape(rows, 1)
