# SPDX-License-Identifier: Apache-2.0
"""The data types of Triton's configurations as numpy has them."""

from typing import Any

import numpy as np

_TYPES: dict[str, Any] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_STRING": np.object_,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
    **{f"TYPE_INT{bits}": np.dtype(f"int{bits}").type for bits in (8, 16, 32, 64)},
    **{f"TYPE_UINT{bits}": np.dtype(f"uint{bits}").type for bits in (8, 16, 32, 64)},
}


def numpy_type(data_type: str) -> Any:
    """The type of an array for a tensor. Raises KeyError for one that numpy lacks (TYPE_BF16).

    >>> numpy_type("TYPE_INT32").__name__
    'int32'
    """
    return _TYPES[data_type]
