# SPDX-License-Identifier: Apache-2.0
"""What tensors a safetensors file holds, read from its header alone.

The file begins with the header's length (8 bytes, little-endian) and the header, JSON: each
tensor's name with its dtype, shape and place among the bytes that follow.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trellis.errors import TrellisError

MOST_HEADER_BYTES = 100_000_000  # the format's own limit
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16}
OTHER_BITS = 8  # fp8, int8, bool
CONVERTED = frozenset({"F64", "F32", "F16", "BF16"})  # to the dtype that a model is loaded in


class SafetensorsError(TrellisError, ValueError):
    """A file that is not safetensors, or not all of it; the message names the file."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file: its name, dtype as the file has it (BF16), and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many."""
        return math.prod(self.shape)

    @property
    def width(self) -> float:
        """Bytes of each."""
        return BITS.get(self.dtype, OTHER_BITS) / 8

    def loaded_bytes(self, width: float | None) -> float:
        """Bytes where numbers are loaded at that width; quantised ones stay what they are."""
        converted = width if width and self.dtype in CONVERTED else self.width
        return self.numbers * converted


def read_tensors(file: Path) -> list[Tensor]:
    """The tensors of a file. Raises SafetensorsError if it is no such file, or was cut short."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(size - 8, MOST_HEADER_BYTES):
            raise SafetensorsError(f"{file.name} is no safetensors file")
        text = opened.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        tensors = [_tensor(name, entry) for name, entry in header.items()]
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise SafetensorsError(f"{file.name} is no safetensors file") from None
    if size < 8 + length + end:
        raise SafetensorsError(f"{file.name} has {size} bytes of {8 + length + end}")
    return tensors


def _tensor(name: str, entry: dict[str, Any]) -> Tensor:
    """A tensor of the header. Raises ValueError, KeyError or TypeError if it is none."""
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    if not isinstance(dtype, str) or not all(type(dim) is int and dim >= 0 for dim in shape):
        raise TypeError(f"{name}: dtype is no string, or shape no list of sizes")
    return Tensor(name, dtype, shape)
