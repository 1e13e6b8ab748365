"""`preprocessing` that reads nothing: eleven constant tensors, the least that its shape costs."""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

IDS = 45


class TritonPythonModel:
    """Triton's entry point."""

    def initialize(self, args: dict[str, str]) -> None:
        """Make the constants, by the outputs of the configuration."""
        self.constants = {}
        for output in json.loads(args["model_config"])["output"]:
            dtype = pb_utils.triton_string_to_numpy(output["data_type"])
            self.constants[output["name"]] = np.zeros([1, *map(abs, output["dims"])], dtype)
        self.constants["INPUT_ID"] = np.arange(1, IDS + 1, dtype=np.int32)[None]
        self.constants["REQUEST_INPUT_LEN"][:] = IDS
        self.constants["REQUEST_DECODER_INPUT_LEN"][:] = 1
        self.constants["OUT_END_ID"][:] = -1
        for name in ("BAD_WORDS_IDS", "STOP_WORDS_IDS"):
            self.constants[name] = np.empty((1, 2, 0), np.int32)
        self.constants["EMBEDDING_BIAS"] = np.empty((1, 0), np.float32)
        del self.constants["REQUEST_OUTPUT_LEN"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """The constants, and the client's max_tokens as it came."""
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.get_input_tensor_by_name(request, "REQUEST_OUTPUT_LEN"),
                    *(pb_utils.Tensor(name, array) for name, array in self.constants.items()),
                ]
            )
            for request in requests
        ]
