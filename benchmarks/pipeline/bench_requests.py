"""The requests of a case, ready to be sent: bytes, with a place left for the id."""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from http_stream import post
from jobs import ID
from plan import Case
from repositories import Pipeline
from texts import Texts
from tritonclient.grpc import service_pb2

from trellis.grpc_client import INPUTS

VARIANTS = 16  # prompts and lengths in one case, sent in turn
FLOOR_IDS = list(range(1, 46))  # Triton alone has the same prompt, however long that of others is
# The client's, and those of the engine, which Triton alone is asked for.
_TYPES: dict[str, tuple[str, Any]] = {
    **INPUTS,
    "input_ids": ("INT32", np.int32),
    "input_lengths": ("INT32", np.int32),
    "request_output_len": ("INT32", np.int32),
    "streaming": ("BOOL", np.bool_),
}


def lengths(case: Case) -> list[int]:
    """How many tokens each variant asks for: around `case.tokens`, so that streams do not march."""
    rng = random.Random(7)
    if not case.streamed or case.whole or case.tokens < 4:
        return [case.tokens] * VARIANTS
    half = case.tokens // 2
    made = [case.tokens - half + round(2 * half * at / (VARIANTS - 1)) for at in range(VARIANTS)]
    rng.shuffle(made)
    return made


def prompts(case: Case, texts: Texts) -> list[str]:
    """The prompts that requests have in turn."""
    few = 4 if case.prompt_tokens > 5_000 else VARIANTS
    return [texts.prompt(case.language, case.prompt_tokens, seed) for seed in range(few)]


def requests(case: Case, pipeline: Pipeline, texts: Texts) -> list[bytes]:
    """One request for each of `lengths(case)`."""
    asked = prompts(case, texts)
    encode: Callable[[str, Mapping[str, Any]], bytes] = (
        _http if case.protocol == "http" else grpc_request
    )
    request_id = f"{ID.decode()}@{case.pace_us}"
    return [
        encode(request_id, _values(case, pipeline, asked[at % len(asked)], length))
        for at, length in enumerate(lengths(case))
    ]


def _values(case: Case, pipeline: Pipeline, prompt: str, length: int) -> dict[str, Any]:
    if not pipeline.takes_text:
        return {
            "input_ids": FLOOR_IDS,
            "input_lengths": len(FLOOR_IDS),
            "request_output_len": length,
            "streaming": case.streamed,
        }
    values: dict[str, Any] = {"text_input": prompt, "max_tokens": length}
    values |= {"stream": True} if case.streamed else {}
    values |= dict(case.parameters)
    if (pipeline.pace_in_seed or pipeline.front) and case.pace_us:
        values["random_seed"] = case.pace_us
    return values


def _http(request_id: str, values: Mapping[str, Any]) -> bytes:
    verb = "generate_stream" if "stream" in values or values.get("streaming") else "generate"
    body = json.dumps({"id": request_id, **values}, ensure_ascii=False).encode()
    return post(f"/v2/models/ensemble/{verb}", body)


def grpc_request(request_id: str, values: Mapping[str, Any]) -> bytes:
    """A serialized ModelInferRequest of `ensemble`."""
    message = service_pb2.ModelInferRequest(model_name="ensemble", id=request_id)
    for name, value in values.items():
        tensor = message.inputs.add(name=name)
        if isinstance(value, str):
            raw = value.encode()
            tensor.datatype, shape = "BYTES", [1, 1]
            message.raw_input_contents.append(len(raw).to_bytes(4, "little") + raw)
        else:
            tensor.datatype, dtype = _TYPES[name]
            array = np.array(value, dtype).reshape(1, -1)
            shape = list(array.shape)
            message.raw_input_contents.append(array.tobytes())
        tensor.shape.extend(shape)
    return bytes(message.SerializeToString())
