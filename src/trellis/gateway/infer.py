# SPDX-License-Identifier: Apache-2.0
"""`/infer` of an ensemble, as KServe's protocol v2 has it, in JSON and binary; no I/O is done here.

Triton's HTTP front end answers no decoupled model by `/infer`. The gateway does: a request becomes
the body of `/generate`, whose checks, route and answer serve it, and that answer becomes the
response.

>>> json_part, binary = split_body([(b"inference-header-content-length", b"2")], b"{}\\x01\\x00")
>>> json_part, binary
(b'{}', b'\\x01\\x00')
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trellis.contract.accepted_fields import ACCEPTED_FIELDS
from trellis.contract.client_inputs import PROMPT, STREAM
from trellis.contract.tensor_types import numpy_type
from trellis.gateway.body import ID, LARGE, unknown
from trellis.gateway.fields import Field
from trellis.gateway.ids import check_id
from trellis.gateway.models import Model
from trellis.gateway.outputs import TEXT, Output
from trellis.gateway.refusals import JSON, Headers, Refusal, shown

JSON_LENGTH = b"inference-header-content-length"
BINARY_TYPE = b"application/octet-stream"
PARAMETERS, BINARY_SIZE, BINARY = "parameters", "binary_data_size", "binary_data"
ALL_BINARY = "binary_data_output"
MAX_DIM = 2**31 - 1
INPUT_KEYS = frozenset(("name", "shape", "datatype", "data", PARAMETERS))
LENGTH = struct.Struct("<I")  # before each value of BYTES


@dataclass(frozen=True)
class InferRequest:
    """A request that was read; its values are checked, and not yet whether they fit together."""

    values: dict[str, Any]  # as a body of `/generate` has them: one value, or one list of values
    request_id: str  # '' for none
    rows: int  # prompts
    wanted: dict[str, bool]  # the outputs to answer with -> whether as binary data

    def generate_body(self) -> bytes:
        """The same request for `/generate`."""
        sent = {ID: self.request_id} if self.request_id else {}
        return json.dumps(sent | self.values).encode()


def split_body(headers: Headers, body: bytes) -> tuple[bytes, bytes]:
    """The JSON of a body, and the binary data behind it. Raises Refusal for a wrong length."""
    lengths = [value for name, value in headers if name.lower() == JSON_LENGTH]
    if not lengths:
        return body, b""
    sent = lengths[0].strip()
    length = int(sent) if sent.isdigit() and len(sent) < 20 else 0
    if len(lengths) > 1 or not 0 < length <= len(body):
        raise Refusal(
            400,
            f"Inference-Header-Content-Length: {shown(sent.decode('latin-1'))}; send it once, with"
            f" the bytes of the JSON, 1 to {len(body)}",
        )
    return body[:length], body[length:]


def read_infer(
    model: Model,
    outputs: Mapping[str, Output],
    asked: Mapping[str, Any],
    binary: bytes,
    once: bool = True,
) -> InferRequest:
    """A request for an ensemble. Raises Refusal that names the input and says what to do.

    `asked`: the JSON object, each key once; `binary`: the data that follow it; `once`: it gets one
    response, made of JSON.
    """
    for key in asked:
        if key not in (ID, "inputs", "outputs", PARAMETERS):
            raise Refusal(
                400,
                f"{shown(key)}: not known in a request to /infer; leave it out, or send it as an"
                ' input: {"name": ..., "shape": ..., "datatype": ..., "data": ...}',
            )
    request_id = asked.get(ID, "")
    check_id(request_id)
    everything = _read_parameters(asked.get(PARAMETERS, {}))
    values, rows = _read_inputs(model, asked.get("inputs"), binary)
    if once:
        _check_one_response(values)
    wanted = _read_wanted(model, outputs, asked.get("outputs"), everything)
    return InferRequest(values, request_id, rows, wanted)


def _read_parameters(parameters: Any) -> bool:
    """Whether outputs are binary data where nothing else is said of one."""
    if not isinstance(parameters, dict):
        raise Refusal(400, f"{PARAMETERS}: not an object; leave it out")
    for name in parameters:
        accepted = ACCEPTED_FIELDS.get(name)
        if name != ALL_BINARY and (accepted is None or accepted.to):
            raise Refusal(
                400, f"{PARAMETERS}: {shown(name)} is not known here; send it as an input if it is"
                " one, or leave it out"
            )  # fmt: skip
    everything = parameters.get(ALL_BINARY, False)
    if not isinstance(everything, bool):
        raise Refusal(400, f"{ALL_BINARY}: not true or false; send one of them")
    return everything


def _read_inputs(model: Model, inputs: Any, binary: bytes) -> tuple[dict[str, Any], int]:
    """The values by name, and how many prompts there are."""
    if not isinstance(inputs, list) or not inputs:
        raise Refusal(400, "inputs: not a list of inputs; send text_input at least")
    values: dict[str, Any] = {}
    batches: dict[str, int] = {}
    at = 0
    for tensor in inputs:
        name, field = _known_input(model, tensor)
        if name in values:
            raise Refusal(400, f"{name}: given twice; send it once")
        size = _binary_size(name, tensor)
        shape = _read_shape(field, tensor.get("shape"))
        if size is None:
            found = _json_values(name, tensor.get("data"), len(shape))
        else:
            found = _binary_values(field, binary[at : at + size], size, math.prod(shape))
            at += size
        values[name] = _flat_value(field, found, shape)
        batches[name] = shape[0] if field.batched else 1
    if at != len(binary):
        raise Refusal(
            400, f"{BINARY_SIZE}: the inputs have {at} bytes together, but {len(binary)} follow"
            " the JSON; send as many"
        )  # fmt: skip
    rows = batches.get(PROMPT, 1)
    for name, batch in batches.items():
        if batch != rows:
            raise Refusal(400, f"{name}: a batch of {batch}, but {PROMPT} has {rows}; send as many")
    return values, rows


def _known_input(model: Model, tensor: Any) -> tuple[str, Field]:
    """The name and the field of an input of the request."""
    name = tensor.get("name") if isinstance(tensor, dict) else None
    if not isinstance(name, str):
        raise Refusal(400, 'inputs: one has no name; send {"name": "text_input", ...} for each')
    field = model.fields.get(name)
    if field is None:
        raise Refusal(400, unknown(name, model))
    for key in tensor:
        if key not in INPUT_KEYS:
            raise Refusal(400, f"{name}: {shown(key)} is not known of an input; leave it out")
    datatype = "BYTES" if field.kind == "STRING" else field.kind
    sent = tensor.get("datatype")
    if sent != datatype:
        said = f"datatype {shown(sent)}" if isinstance(sent, str) else "no datatype"
        raise Refusal(400, f"{name}: {said}; send {datatype}")
    return name, field


def _binary_size(name: str, tensor: Mapping[str, Any]) -> int | None:
    """How many bytes of the binary data are an input's; None for values in JSON."""
    parameters = tensor.get(PARAMETERS, {})
    if not isinstance(parameters, dict):
        raise Refusal(400, f"{name}: {PARAMETERS} is not an object; leave it out")
    for key in parameters:
        if key.startswith("shared_memory"):
            raise Refusal(400, f"{name}: shared memory is not read here; send the data themselves")
        if key != BINARY_SIZE:
            raise Refusal(400, f"{name}: {shown(key)} is not known of an input; leave it out")
    if BINARY_SIZE not in parameters:
        return None
    size = parameters[BINARY_SIZE]
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise Refusal(
            400, f"{name}: {BINARY_SIZE} is not a whole number, 0 or more; send the bytes"
        )
    if "data" in tensor:
        raise Refusal(400, f"{name}: data and {BINARY_SIZE} are given; send one of them")
    return size


def _read_shape(field: Field, shape: Any) -> list[int]:
    """The shape of an input, each dim at least 1 and as the ensemble has it."""
    wanted = ([-1] if field.batched else []) + list(field.dims)
    plain = isinstance(shape, list) and all(type(dim) is int for dim in shape)
    if (
        not plain
        or len(shape) != len(wanted)
        or any(
            not 1 <= dim <= MAX_DIM or need not in (-1, dim)
            for dim, need in zip(shape, wanted, strict=True)
        )
    ):
        said = shown(json.dumps(shape[: len(wanted) + 1])) if plain else "no list of whole numbers"
        raise Refusal(400, f"{field.name}: shape {said}; send {wanted}, for -1 any number above 0")
    return list(shape)


def _json_values(name: str, sent: Any, depth: int) -> list[Any]:
    """The values in JSON, of lists that go so deep at most."""
    if not isinstance(sent, list):
        raise Refusal(400, f"{name}: no list of data; send the values as data: [...]")
    data: list[Any] = sent
    for _ in range(depth - 1):
        if not any(isinstance(item, list) for item in data):
            break
        if not all(isinstance(item, list) for item in data):
            raise Refusal(400, f"{name}: data mix lists and values; send one list of values")
        data = [value for item in data for value in item]
    return data


def _binary_values(field: Field, data: bytes, size: int, count: int) -> list[Any]:
    """The values in binary data. Raises Refusal if their number or size is another."""
    if len(data) < size:
        raise Refusal(
            400, f"{field.name}: {BINARY_SIZE} is {size}, but {len(data)} bytes are left; send all"
        )
    if field.kind == "STRING":
        return list(_texts(field.name, data))
    try:
        dtype = np.dtype(numpy_type(f"TYPE_{field.kind}")).newbyteorder("<")
    except KeyError:
        raise Refusal(400, f"{field.name}: {field.kind} is not read here; send by gRPC") from None
    if size != count * dtype.itemsize:
        raise Refusal(
            400, f"{field.name}: {BINARY_SIZE} is {size}, but {count} values of {field.kind} take"
            f" {count * dtype.itemsize} bytes; send as many"
        )  # fmt: skip
    if field.kind == "BOOL" and data.strip(b"\0\1"):
        raise Refusal(400, f"{field.name}: a byte of BOOL is neither 0 nor 1; send one of them")
    found: list[Any] = np.frombuffer(data, dtype).tolist()
    return found


def _texts(name: str, data: bytes) -> Iterator[str]:
    """The texts of BYTES, each after its length in 4 bytes."""
    at = 0
    while at < len(data):
        end = at + LENGTH.size
        end += LENGTH.unpack(data[at:end])[0] if end <= len(data) else 0
        if end > len(data):
            raise Refusal(
                400, f"{name}: a text goes beyond {BINARY_SIZE}; send 4 bytes of length"
                " (little-endian) before each text"
            )  # fmt: skip
        try:
            yield data[at + LENGTH.size : end].decode()
        except UnicodeDecodeError as error:
            raise Refusal(
                400, f"{name}: not valid UTF-8 at byte {error.start} ({error.reason}); send text"
            ) from error
        at = end


def _flat_value(field: Field, found: list[Any], shape: list[int]) -> Any:
    """The values as a body of `/generate` has them. Raises Refusal for what it has no form for."""
    count = math.prod(shape)
    if len(found) != count:
        raise Refusal(
            400, f"{field.name}: {len(found)} values, but the shape is for {count}; send as many"
        )
    row = shape[1:] if field.batched else shape
    free = [size for size, dim in zip(row, field.dims, strict=True) if dim < 0]
    if field.open_ended and field.batched and shape[0] > 1:
        raise Refusal(
            400, f"{field.name}: not possible for {shape[0]} prompts at once over HTTP; send them"
            " one by one, or by gRPC"
        )  # fmt: skip
    if len(free) > 1 and math.prod(free[:-1]) > 1:
        raise Refusal(400, f"{field.name}: not possible in this shape over HTTP; send it by gRPC")
    field.rows(found, escaped=True)
    return found if count > 1 or field.open_ended else found[0]


def _check_one_response(values: Mapping[str, Any]) -> None:
    """Raise Refusal for what an answer in one response, made of JSON, does not have."""
    if _any_true(values.get(STREAM)):
        raise Refusal(
            400, f"{STREAM}: /infer gives one response; send it to /generate_stream, or leave"
            f" {STREAM} out"
        )  # fmt: skip
    for name in LARGE:
        if _any_true(values.get(name)):
            raise Refusal(400, f"{name}: not possible by /infer over HTTP; ask by gRPC")


def _any_true(value: Any) -> bool:
    return value is True or (isinstance(value, list) and True in value)


def _read_wanted(
    model: Model, outputs: Mapping[str, Output], asked: Any, everything: bool
) -> dict[str, bool]:
    """The outputs to answer with, each with whether as binary data; all if none is named."""
    if asked is None or asked == []:
        return dict.fromkeys(outputs, everything)
    if not isinstance(asked, list):
        raise Refusal(400, "outputs: not a list; leave it out")
    wanted: dict[str, bool] = {}
    for output in asked:
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str):
            raise Refusal(400, 'outputs: one has no name; send {"name": "text_output"}')
        if name not in outputs:
            have = ", ".join(outputs)
            raise Refusal(400, f"{shown(name)}: no output of {shown(model.name)}; it has {have}")
        if name in wanted:
            raise Refusal(400, f"{name}: asked for twice; send it once")
        wanted[name] = _binary_wanted(name, output, everything)
    return wanted


def _binary_wanted(name: str, output: Mapping[str, Any], everything: bool) -> bool:
    """Whether an output is wanted as binary data."""
    parameters = output.get(PARAMETERS, {})
    others = [key for key in output if key not in ("name", PARAMETERS)]
    if not isinstance(parameters, dict):
        raise Refusal(400, f"{name}: {PARAMETERS} is not an object; leave it out")
    for key in (*others, *parameters):
        if key == "classification":
            raise Refusal(400, f"{name}: {key} is not possible here; leave it out")
        if key.startswith("shared_memory"):
            raise Refusal(400, f"{name}: shared memory is not written here; leave it out")
        if key in others or key != BINARY:
            raise Refusal(400, f"{name}: {shown(key)} is not known of an output; leave it out")
    binary = parameters.get(BINARY, everything)
    if not isinstance(binary, bool):
        raise Refusal(400, f"{name}: {BINARY} is not true or false; send one of them")
    return binary


def infer_answer(
    request: InferRequest, outputs: Mapping[str, Output], answer: bytes
) -> tuple[Headers, bytes]:
    """The response to a request: its headers and its body.

    `answer`: the JSON object that `/generate` gives. Raises Refusal if it is an error, or if the
    shape of an output cannot be told.
    """
    given: dict[str, Any] = json.loads(answer)
    if "error" in given:
        raise Refusal(400, str(given["error"]))
    texts = given.get(TEXT)
    sequences = max(1, (len(texts) if isinstance(texts, list) else 1) // request.rows)
    written, data = [], []
    for name, binary in request.wanted.items():
        if name not in given:
            continue
        values = given[name] if isinstance(given[name], list) else [given[name]]
        output = outputs[name]
        shape = output.shape(len(values), request.rows, sequences)
        tensor: dict[str, Any] = {"name": name, "datatype": output.datatype, "shape": shape}
        if binary:
            data.append(bytes_of(output, values))
            tensor[PARAMETERS] = {BINARY_SIZE: len(data[-1])}
        else:
            tensor["data"] = values
        written.append(tensor)
    about = {key: given[key] for key in ("model_name", "model_version") if key in given}
    named = {ID: request.request_id} if request.request_id else {}
    head = json.dumps(named | about | {"outputs": written}, ensure_ascii=False)
    encoded = head.encode("utf-8", "replace")
    if not data:
        return [(b"content-type", JSON)], encoded
    length = b"%d" % len(encoded)
    return [(b"content-type", BINARY_TYPE), (JSON_LENGTH, length)], b"".join((encoded, *data))


def bytes_of(output: Output, values: list[Any]) -> bytes:
    """The values as binary data."""
    if output.kind == "STRING":
        texts = [text.encode("utf-8", "replace") for text in values]
        return b"".join(LENGTH.pack(len(text)) + text for text in texts)
    dtype = np.dtype(numpy_type(f"TYPE_{output.kind}")).newbyteorder("<")
    return np.array(values, dtype).tobytes()
