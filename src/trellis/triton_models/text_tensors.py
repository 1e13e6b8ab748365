# SPDX-License-Identifier: Apache-2.0
"""The tensors that `postprocessing` answers with: one dimension, as those of TensorRT-LLM's models.

Triton sends a Python model's output as it is, so a batch dimension is not needed: clients of
`text_output` get [rows x sequences], row after row.

A stream says the same short texts over and over. Their tensors are made once and sent again: Triton
writes a tensor to shared memory when it is sent first, reads it from there, and frees it when
nobody holds it any more. That is most of what an answer costs.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

KEPT = 4096  # tensors, of some 250 bytes of shared memory each
SHORT = 32  # characters: a token, or a few


def text_tensor(text: str) -> Any:
    """OUTPUT, [1]: one text."""
    return _kept(text) if len(text) <= SHORT else _made(text)


def texts_tensor(texts: np.ndarray) -> Any:
    """OUTPUT, [rows x sequences] in row-major order, from an array of UTF-8."""
    return pb_utils.Tensor("OUTPUT", texts.reshape(-1))


def _made(text: str) -> Any:
    return pb_utils.Tensor("OUTPUT", np.array([text.encode()], np.object_))


_kept = lru_cache(KEPT)(_made)
