# SPDX-License-Identifier: Apache-2.0
"""Talking to `ensemble` over gRPC: one prompt or a batch in, text out as it comes."""

import queue
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from trellis.contract.client_inputs import CLIENT_INPUTS, PROMPT

_NUMPY: dict[str, Any] = {
    "INT32": np.int32,
    "UINT64": np.uint64,
    "FP32": np.float32,
    "BOOL": np.bool_,
    "BYTES": np.object_,
}
# The inputs of `ensemble` that a request may set: name -> (Triton's dtype, numpy's).
INPUTS: dict[str, tuple[str, Any]] = {
    item.name: (item.dtype, _NUMPY[item.dtype]) for item in CLIENT_INPUTS if item.name != PROMPT
}


def input_types(
    client: triton.InferenceServerClient,
    model: str = "ensemble",
    headers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Triton's types of the ensemble's inputs, by name: releases 0.5 and 0.6 have UINT32."""
    metadata = client.get_model_metadata(model, headers=headers)
    return {tensor.name: tensor.datatype for tensor in metadata.inputs}


def request_inputs(
    prompts: list[bytes], values: Mapping[str, Any], types: Mapping[str, str] | None = None
) -> list[triton.InferInput]:
    """The tensors of one request, a row a prompt; a value is shared by all rows.

    `types`: see `input_types`; without them those of INPUTS.
    """
    inputs = [_tensor(PROMPT, "BYTES", np.array([[p] for p in prompts], np.object_))]
    for name, value in values.items():
        dtype, kind = INPUTS[name]
        items = value if isinstance(value, list | tuple) else [value]
        row = [item.encode() if isinstance(item, str) else item for item in items]
        array = np.array([row] * len(prompts), kind)
        if types is not None and types.get(name) == "UINT32":
            dtype, array = "UINT32", array.astype(np.uint32)  # -1, "none", is the largest number
        inputs.append(_tensor(name, dtype, array))
    return inputs


def generate(
    client: triton.InferenceServerClient,
    prompts: list[bytes],
    values: Mapping[str, Any],
    request_id: str = "",
    timeout: float = 600,
    outputs: Sequence[str] = (),
    types: Mapping[str, str] | None = None,
    model: str = "ensemble",
    headers: Mapping[str, str] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The responses to one request as they come: output name -> array.

    Texts, [rows x sequences], are object: UTF-8 bytes; other outputs are [rows, ...] of the dtype
    in the ensemble's configuration. `outputs`: which to ask for; none: all that come. `types`: see
    `request_inputs`. `headers`: of the call, as `{"authorization": "Bearer ..."}`.
    Raises InferenceServerException for an error of this request, queue.Empty after `timeout`
    seconds of silence. Uses the client's one stream: one request at a time on a client.
    """
    answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
    finished = False
    try:
        client.async_stream_infer(
            model,
            request_inputs(prompts, values, types),
            outputs=[triton.InferRequestedOutput(name) for name in outputs] or None,
            request_id=request_id,
            enable_empty_final_response=True,
        )
        while True:
            result, error = answers.get(timeout=timeout)
            if error is not None:
                finished = True
                raise error
            response = result.get_response()
            if response.outputs:
                yield {o.name: result.as_numpy(o.name) for o in response.outputs}
            if response.parameters["triton_final_response"].bool_param:
                finished = True
                return
    finally:
        client.stop_stream(cancel_requests=not finished)


def texts(responses: Iterator[dict[str, np.ndarray]]) -> Iterator[str]:
    """The text of each response of a request with one prompt and one sequence.

    `responses`: their `text_output` is [1], object: UTF-8 bytes.
    """
    for response in responses:
        yield response["text_output"].reshape(-1)[0].decode()


def _tensor(name: str, dtype: str, array: np.ndarray) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), dtype)
    tensor.set_data_from_numpy(array)
    return tensor
