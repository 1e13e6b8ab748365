# SPDX-License-Identifier: Apache-2.0
"""Requests over gRPC that can be asked by an engine's step socket, and their answers' messages.

What cannot be read here is no error: Triton gets it, and says what it thinks of it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelStreamInferResponse

from trellis.gateway.body import prepare
from trellis.gateway.ids import RequestId
from trellis.gateway.infer import BINARY_SIZE, PARAMETERS, bytes_of, read_infer
from trellis.gateway.limits import Limits
from trellis.gateway.models import Model
from trellis.gateway.outputs import TEXT, Output
from trellis.gateway.prepared import Prepared
from trellis.gateway.refusals import Refusal
from trellis.gateway.step_channel import StepChannel
from trellis.gateway.step_text import StepText
from trellis.gateway.text_answers import Source
from trellis.pipeline.decode import Detokenizer

FINAL = "triton_final_response"
# Asks for an answer that only says that it is the last: here the last one has something in it.
EMPTY_FINAL = "triton_enable_empty_final_response"
SEQUENCE = ("sequence_start", "sequence_end")  # what Triton says of each answer of an ensemble


class Asked(NamedTuple):
    """A request that was read."""

    prepared: Prepared
    outputs: Mapping[str, Output]  # those that are wanted, by name


def read_tensors(
    model: Model, request: ModelInferRequest, inner_id: str, limits: Limits
) -> Asked | None:
    """A request as `/generate` would have it; None where it is for Triton.

    That is one with parameters, for one version, with tensors that are not raw or that are wrong.
    """
    beside = set(request.parameters) - {EMPTY_FINAL}
    if beside or request.model_version or len(request.raw_input_contents) != len(request.inputs):
        return None
    if any(tensor.parameters for tensor in (*request.inputs, *request.outputs)):
        return None
    asked = {
        "id": request.id,
        "inputs": [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "datatype": tensor.datatype,
                PARAMETERS: {BINARY_SIZE: len(data)},
            }
            for tensor, data in zip(request.inputs, request.raw_input_contents, strict=True)
        ],
        "outputs": [{"name": tensor.name} for tensor in request.outputs],
    }
    binary = b"".join(request.raw_input_contents)
    try:
        known = replace(model, fields=model.inputs)
        infer = read_infer(known, model.outputs, asked, binary, once=False)
        prepared = prepare(model, infer.generate_body(), inner_id, limits, once=False)
    except Refusal:
        return None
    return Asked(prepared, {name: model.outputs[name] for name in infer.wanted})


class StepTensors(StepText):
    """One answer of a Python engine on its way: `feed` makes a message of each event."""

    def __init__(
        self,
        source: Source,
        channel: StepChannel,
        texts: Detokenizer,
        request_id: RequestId,
        skip_special_tokens: bool | None,
        outputs: Mapping[str, Output],
    ) -> None:
        super().__init__(source, channel.version, texts, request_id, skip_special_tokens)
        self._outputs = outputs
        self._plain = self._named()
        answer = self._plain.infer_response
        answer.model_version = channel.version
        answer.parameters["sequence_id"].int64_param = 0
        for name in (FINAL, *SEQUENCE):
            answer.parameters[name].bool_param = False

    def feed(self, event: Any) -> bytes:
        """What goes to the client after this event."""
        return self._written(event)

    def lost(self, why: str) -> bytes:
        """What ends it where the engine does not."""
        self.cut = True
        return self._error(why)

    def _named(self) -> ModelStreamInferResponse:
        made = ModelStreamInferResponse()
        made.infer_response.model_name = self._source.ensemble
        made.infer_response.id = self.request_id.client
        return made

    def _answer(self, text: str, outputs: dict[str, Any], ended: bool) -> bytes:
        made = ModelStreamInferResponse()
        made.CopyFrom(self._plain)
        if ended:
            made.infer_response.parameters[FINAL].bool_param = True
        for name, value in outputs.items():
            shown = self._source.names.get(name.encode())
            if shown is not None:
                self._add(made, shown.decode(), value if isinstance(value, list) else [value])
        self._add(made, TEXT, [text])
        return bytes(made.SerializeToString())

    def _add(self, made: ModelStreamInferResponse, name: str, values: list[Any]) -> None:
        output = self._outputs.get(name)
        if output is None:
            return
        shape = output.shape(len(values), rows=1, sequences=1)
        made.infer_response.outputs.add(name=name, datatype=output.datatype, shape=shape)
        made.infer_response.raw_output_contents.append(bytes_of(output, values))

    def _error(self, message: str) -> bytes:
        made = self._named()
        made.error_message = f"in ensemble '{self._source.ensemble}', {message}"
        made.infer_response.parameters[FINAL].bool_param = True
        return bytes(made.SerializeToString())
