# SPDX-License-Identifier: Apache-2.0
"""What of a gRPC request its key is charged for, and which model it asks."""

from typing import NamedTuple

from google.protobuf.message import DecodeError
from tritonclient.grpc.service_pb2 import ModelInferRequest

from trellis.contract.client_inputs import BEAMS, MAX_TOKENS, SEQUENCES, STOP
from trellis.gateway.prepared import tokens_asked
from trellis.gateway.refusals import Refusal

COUNTED = (MAX_TOKENS, SEQUENCES, BEAMS)
BYTES = 4  # of one number: INT32 or UINT32


class GrpcRequest(NamedTuple):
    """A request as far as it is read here."""

    asked: ModelInferRequest
    tokens: int  # that it may take

    @property
    def model(self) -> str:
        """The model that is asked."""
        return str(self.asked.model_name)


def read_request(data: bytes) -> GrpcRequest:
    """The model and the tokens of a `ModelInferRequest`. Raises Refusal for what is none."""
    try:
        asked = ModelInferRequest.FromString(data)
    except DecodeError:
        raise Refusal(400, "the message is no ModelInferRequest") from None
    raw = list(asked.raw_input_contents)
    values: dict[str, list[int]] = {}
    for index, tensor in enumerate(asked.inputs):
        if tensor.name in COUNTED:
            numbers = [*tensor.contents.int_contents, *tensor.contents.uint_contents]
            if index < len(raw):
                numbers += _numbers(raw[index])
            values[tensor.name] = [number for number in numbers if number > 0]
    return GrpcRequest(asked, tokens_asked(values, len(data)))


def is_stop(request: ModelInferRequest) -> bool:
    """Whether it ends another request, by its input `stop`: false asks for nothing."""
    raw = request.raw_input_contents
    return any(
        tensor.name == STOP
        and (any(tensor.contents.bool_contents) or (at < len(raw) and any(raw[at])))
        for at, tensor in enumerate(request.inputs)
    )


def _numbers(data: bytes) -> list[int]:
    places = range(0, len(data) - BYTES + 1, BYTES)
    return [int.from_bytes(data[at : at + BYTES], "little", signed=True) for at in places]
