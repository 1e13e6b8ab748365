# SPDX-License-Identifier: Apache-2.0
"""Tensors of one number, which are made once and sent again.

End and padding ids, limits, lengths and sampling values are the same in request after request.
Triton writes a tensor to shared memory when it is sent first, reads it from there, and frees it
when nobody holds it any more; so one that is kept costs nothing but the look-up.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

KEPT = 1024  # tensors, of some 250 bytes of shared memory each


def column(name: str, values: Sequence[Any], dtype: Any) -> Any:
    """The tensor [rows, 1] of one value a row."""
    if len(values) == 1:
        return _kept(name, values[0], dtype)
    return _made(name, values, dtype)


def _made(name: str, values: Sequence[Any], dtype: Any) -> Any:
    return pb_utils.Tensor(name, np.array(values, dtype).reshape(-1, 1))


@lru_cache(KEPT)
def _kept(name: str, value: Any, dtype: Any) -> Any:
    return _made(name, [value], dtype)
