"""`postprocessing` that reads nothing: a constant text for every chunk."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

TEXT = np.array([[b" the"]], np.object_)


class TritonPythonModel:
    """Triton's entry point."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """The same text for each."""
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", TEXT)]) for _ in requests]
