"""gRPC requests to any of the models: tensors that fit, that nearly fit, and raw bytes."""

import struct
from typing import Any

import numpy as np
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from fuzz.model_inputs import INPUTS, LENGTHS, SENSIBLE, Input, harmless_length

NUMPY = {"INT32": np.int32, "UINT64": np.uint64, "FP32": np.float32, "FP16": np.float16}
NUMPY |= {"BOOL": np.bool_, "INT64": np.int64}
# Keys that clients of `postprocessing` make up; the test ends these streams after each batch.
STREAM_KEYS = (0, 1, 7, 2**63, 2**64 - 1)
NEEDED = {
    "ensemble": {"text_input", "max_tokens"},
    "preprocessing": {"QUERY", "REQUEST_OUTPUT_LEN"},
    "tensorrt_llm": {"input_ids", "input_lengths", "request_output_len"},
    "postprocessing": {"TOKENS_BATCH", "STREAM_KEY", "STREAM_END"},
}


@st.composite
def requests(draw: st.DrawFn, model: str) -> pb.ModelInferRequest:
    """One request. Most have what the model needs, and then a few inputs more."""
    request = pb.ModelInferRequest(model_name=model)
    rows = draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
    by_name = {item.name: item for item in INPUTS[model]}
    optional = [name for name in by_name if name not in NEEDED[model]]
    names = [name for name in by_name if name in NEEDED[model] and draw(st.integers(0, 19))]
    sensible = [name for name in optional if name.removeprefix("runtime_") in SENSIBLE]
    more = st.lists(st.sampled_from(optional), max_size=3, unique=True)
    if sensible:
        more = st.one_of(st.lists(st.sampled_from(sensible), max_size=3, unique=True), more)
    names += draw(more)
    for name in names:
        _add(draw, request, by_name[name], rows)
    if not draw(st.integers(0, 4)):
        request.id = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
    return request


def _add(draw: st.DrawFn, request: pb.ModelInferRequest, item: Input, rows: int) -> None:
    kind = draw(st.integers(0, 49))
    shape = [rows, *(draw(st.integers(0, 3)) if size < 0 else size for size in item.dims)]
    dtype = item.dtype
    if kind == 0:  # any shape, with as many values as it says, or not
        shape = draw(st.lists(st.integers(-1, 4), max_size=4))
    elif kind == 1:
        dtype = draw(st.sampled_from(["STRING", *NUMPY]))
    count = max(int(np.prod(shape)), 0) if shape else 0
    if kind == 2:
        raw = draw(st.binary(max_size=64))
    else:
        raw = _raw(draw, item if dtype == item.dtype else Input(item.name, dtype, ()), count)
    tensor = request.inputs.add(name=item.name, datatype="BYTES" if dtype == "STRING" else dtype)
    tensor.shape.extend(shape)
    request.raw_input_contents.append(_harmless(item.name, raw))


def _raw(draw: st.DrawFn, item: Input, count: int) -> bytes:
    values = [draw(_values(item)) for _ in range(count)]
    if item.dtype == "STRING":
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    with np.errstate(all="ignore"):
        return np.array(values, NUMPY[item.dtype]).tobytes()


def _values(item: Input) -> st.SearchStrategy[Any]:
    if item.dtype == "STRING":
        text = item.values.map(lambda value: str(value).encode())
        return st.one_of(text, text, text, st.binary(max_size=20))
    if item.name == "STREAM_KEY" and item.dtype == "UINT64":
        return st.sampled_from(STREAM_KEYS)
    if item.name in ("input_ids", "TOKENS_BATCH"):
        return st.one_of(*[st.integers(0, 49151)] * 3, item.values)
    if item.name == "input_lengths":
        return st.one_of(*[st.integers(1, 3)] * 2, item.values)
    if item.name in LENGTHS and item.dtype != "INT32":
        return Input("", item.dtype, ()).values
    return item.values


def _harmless(name: str, raw: bytes) -> bytes:
    """No length that takes minutes, whatever the bytes were meant to be."""
    if name not in LENGTHS or len(raw) % 4:
        return raw
    numbers = struct.unpack(f"<{len(raw) // 4}i", raw)
    return struct.pack(f"<{len(numbers)}i", *map(harmless_length, numbers))
