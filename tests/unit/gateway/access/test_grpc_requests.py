"""What a gRPC request is charged for, whichever way its tensors are sent."""

import numpy as np
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest

from trellis.gateway.access.grpc_requests import read_request
from trellis.gateway.refusals import Refusal


def request(raw: bool, **numbers: list[int]) -> bytes:
    made = ModelInferRequest(model_name="ensemble")
    text = made.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
    if raw:
        made.raw_input_contents.append(b"\x01\x00\x00\x00x")
    else:
        text.contents.bytes_contents.append(b"x")
    for name, values in numbers.items():
        added = made.inputs.add(name=name, datatype="INT32", shape=[len(values), 1])
        if raw:
            made.raw_input_contents.append(np.array(values, "<i4").tobytes())
        else:
            added.contents.int_contents.extend(values)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize("raw", [True, False])
def test_answers_of_all_rows_and_sequences_count(raw: bool) -> None:
    data = request(raw, max_tokens=[8, 16], num_return_sequences=[3, 1])
    read = read_request(data)
    assert (read.model, read.tokens) == ("ensemble", 24 * 3 + len(data) // 4)


@pytest.mark.parametrize("raw", [True, False])
def test_what_the_models_will_reject_costs_no_less_than_nothing(raw: bool) -> None:
    data = request(raw, max_tokens=[-5], beam_width=[-1])
    read = read_request(data)
    assert (read.model, read.tokens) == ("ensemble", len(data) // 4)


def test_a_tensor_cut_off_is_read_as_far_as_it_goes() -> None:
    made = ModelInferRequest(model_name="m", raw_input_contents=[b"\x05\x00\x00\x00\x01"])
    made.inputs.add(name="max_tokens")
    assert read_request(made.SerializeToString()).tokens == 5 + made.ByteSize() // 4


def test_what_is_no_request_is_refused() -> None:
    with pytest.raises(Refusal, match="no ModelInferRequest"):
        read_request(b"\xff\xff\xff")
