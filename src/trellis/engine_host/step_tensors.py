# SPDX-License-Identifier: Apache-2.0
"""The tensors of a request that comes as JSON, as Triton would make them of one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trellis.contract.tensor_types import numpy_type
from trellis.errors import RequestError


@dataclass(frozen=True)
class StepTensors:
    """The inputs of a model: name -> numpy's type and the dims of a row (-1: any)."""

    inputs: Mapping[str, tuple[Any, tuple[int, ...]]]

    @classmethod
    def of(cls, model_config: str) -> "StepTensors":
        """By a model's configuration, in JSON as Triton gives it."""
        return cls(
            {
                tensor["name"]: (
                    numpy_type(tensor["data_type"]),
                    tuple(int(dim) for dim in tensor["dims"]),
                )
                for tensor in json.loads(model_config)["input"]
                if tensor["data_type"] != "TYPE_BF16"
            }
        )

    def read(self, body: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The tensors of one row, [1, *dims] each; strings as UTF-8 in arrays of objects.

        Raises RequestError for values that do not fit.
        """
        return {
            name: self._array(name, value) for name, value in body.items() if name in self.inputs
        }

    def _array(self, name: str, value: Any) -> np.ndarray:
        dtype, dims = self.inputs[name]
        row = value if isinstance(value, list) else [value]
        try:
            if dtype is np.object_:
                row = [text.encode() for text in row]
            return np.array(row, dtype).reshape(1, *dims)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise RequestError(f"{name}: {error}") from None
