"""Stream an answer over gRPC: python examples/ask_grpc.py localhost:8001 "Once upon a time".

Needs the packages tritonclient[grpc] and numpy.
"""

import queue
import sys
import uuid
from typing import Any

import numpy as np
import tritonclient.grpc as triton


def tensor(name: str, dtype: str, value: np.ndarray) -> triton.InferInput:
    """An input of `ensemble`: [1, 1], one prompt and one value."""
    made = triton.InferInput(name, [1, 1], dtype)
    made.set_data_from_numpy(value.reshape(1, 1))
    return made


url, prompt = sys.argv[1:]
inputs = [
    tensor("text_input", "BYTES", np.array([prompt.encode()], np.object_)),
    tensor("max_tokens", "INT32", np.array([32], np.int32)),
    tensor("temperature", "FP32", np.array([0], np.float32)),
    tensor("stream", "BOOL", np.array([True])),
]
answers: queue.Queue[tuple[Any, Any]] = queue.Queue()

with triton.InferenceServerClient(url) as client:
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer(
        "ensemble",
        inputs,
        request_id=str(uuid.uuid4()),  # the C++ backend knows a stream by it
        enable_empty_final_response=True,
    )
    while True:
        result, error = answers.get(timeout=60)
        if error is not None:  # the message names the field that was wrong
            sys.exit(error.message())
        text = result.as_numpy("text_output")  # [sequences], None in the empty last response
        if text is not None:
            print(text.reshape(-1)[0].decode(), end="", flush=True)
        if result.get_response().parameters["triton_final_response"].bool_param:
            break
print()
