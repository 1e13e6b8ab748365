"""python ask_tritonclient.py HTTP GRPC STREAMS PROMPT TOKENS: both protocols, and asyncio.

HTTP and GRPC are a server with `decoupled_mode:false`, STREAMS is the gRPC address of one without.
"""

import asyncio
import json
import queue
import sys
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

http, grpc, streams, prompt, tokens = sys.argv[1:]
COUNTS = ("num_input_tokens", "num_output_tokens")


def inputs(module: ModuleType, stream: bool = False) -> list[Any]:
    """The tensors of one request that asks for the counts too."""
    made = []
    for name, kind, value in (
        ("text_input", "BYTES", np.array([[prompt.encode()]], dtype=object)),
        ("max_tokens", "INT32", np.array([[int(tokens)]], dtype=np.int32)),
        ("stream", "BOOL", np.array([[stream]])),
        *((f"return_{count}", "BOOL", np.array([[True]])) for count in COUNTS),
    ):
        tensor = module.InferInput(name, list(value.shape), kind)
        tensor.set_data_from_numpy(value)
        made.append(tensor)
    return made


def read(result: Any) -> dict[str, Any]:
    """Text and counts of one response."""
    text = result.as_numpy("text_output").reshape(-1)[0].decode()
    return {"text": text} | {name: int(result.as_numpy(name).reshape(-1)[0]) for name in COUNTS}


def streamed() -> list[dict[str, Any]]:
    """Every response of a gRPC stream, without a request id; it ends by the final flag."""
    client = tritonclient.grpc.InferenceServerClient(streams)
    came: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: came.put((result, error)))
    client.async_stream_infer(
        "ensemble", inputs(tritonclient.grpc, True), enable_empty_final_response=True
    )
    chunks = []
    while True:
        result, error = came.get(timeout=60)
        if error:
            raise error
        response = result.get_response()
        if response.outputs:
            chunks.append(read(result))
        if response.parameters["triton_final_response"].bool_param:
            break
    client.stop_stream()
    client.close()
    return chunks


async def asked(module: ModuleType, url: str) -> dict[str, Any]:
    """One answer by the asyncio client."""
    async with module.InferenceServerClient(url) as client:
        return read(await client.infer("ensemble", inputs(module)))


answers = {
    "http": read(
        tritonclient.http.InferenceServerClient(http).infer("ensemble", inputs(tritonclient.http))
    ),
    "grpc": read(
        tritonclient.grpc.InferenceServerClient(grpc).infer("ensemble", inputs(tritonclient.grpc))
    ),
    "http.aio": asyncio.run(asked(tritonclient.http.aio, http)),
    "grpc.aio": asyncio.run(asked(tritonclient.grpc.aio, grpc)),
}
print(json.dumps({"answers": answers, "chunks": streamed()}))
