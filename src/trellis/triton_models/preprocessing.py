# SPDX-License-Identifier: Apache-2.0
"""`preprocessing`: text to token ids, a whole dynamic batch at a time.

The first step of the ensemble. It turns the client's text, word lists and ids into the tensors of
`tensorrt_llm` and gives every row a `stream_key` under which `postprocessing` keeps its state.
TensorRT-LLM's own engines pass no key on: for them see `pipeline/engine_inputs.py` and
`pipeline/announced_streams.py`.
A bad request is answered with an error that names its field; the others of its batch go on.
"""

import logging
from typing import Any

import triton_python_backend_utils as pb_utils

from trellis.contract.model_names import model_of
from trellis.errors import RequestError
from trellis.ipc.heartbeats import heartbeats
from trellis.ipc.process_state import show_stacks_on_signal
from trellis.ipc.server_lifetime import end_with_server
from trellis.pipeline.announced_streams import IdStreams
from trellis.pipeline.encode import Outputs, Preprocessor, Row, Stop
from trellis.pipeline.model_settings import ModelSettings
from trellis.pipeline.prompts import Prompts
from trellis.triton_models.http_counts import HttpCounts
from trellis.triton_models.tensor_cache import column

logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")


class TritonPythonModel:
    """Triton's entry point: `initialize` once, `execute` a batch of requests."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer named in the parameters; raises with the parameter's name."""
        end_with_server()
        show_stacks_on_signal()
        settings = ModelSettings.read(args)
        self.heartbeat = heartbeats().claim(f"the process of {settings.name}")
        self.preprocessor = Preprocessor(settings)
        own_engine = self.preprocessor.engine_inputs is not None
        repository, model = settings.folder.parent.parent, model_of(settings.name)
        self.id_streams = IdStreams(repository, model) if own_engine else None
        self.http_counts = HttpCounts(settings.name)

    def finalize(self) -> None:
        """End what listens."""
        self.heartbeat.release()
        self.http_counts.close()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request, in order, with its tensors or its own error."""
        with self.heartbeat.working():
            return self._answer(requests)

    def _answer(self, requests: list[Any]) -> list[Any]:
        read = []
        for request in requests:
            read.append(self._read(request))
            self.heartbeat.go_on()
        texts = [text for item in read if not isinstance(item, RequestError) for text in item.texts]
        encoded = iter(self.preprocessor.encode(texts))
        rows = [
            [] if isinstance(item, RequestError) else [next(encoded) for _ in item.texts]
            for item in read
        ]
        if self.id_streams is not None:
            self.id_streams.begin(zip(read, rows, strict=True), self.preprocessor.counted)
        return [
            _error(item) if isinstance(item, RequestError) else self._respond(item, ids)
            for item, ids in zip(read, rows, strict=True)
        ]

    def _read(self, request: Any) -> Prompts | Stop | RequestError:
        try:
            arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            return self.preprocessor.read(arrays, request.request_id)
        except RequestError as bad:
            return bad
        except Exception as error:  # this request's alone, whatever it is
            return RequestError(f"the request could not be read: {error}")

    def _respond(self, prompts: Prompts | Stop, rows: list[Row]) -> Any:
        try:
            outputs = self.preprocessor.outputs(prompts, rows)
            return pb_utils.InferenceResponse(self._tensors(outputs))
        except RequestError as bad:
            return _error(bad)
        except Exception as error:  # this request's alone, whatever it is
            return _error(RequestError(f"the request could not be prepared: {error}"))

    def _tensors(self, outputs: Outputs) -> list[Any]:
        types = self.preprocessor.types
        return [
            *(pb_utils.Tensor(name, array) for name, array in outputs.arrays.items()),
            *(column(name, values, types[name]) for name, values in outputs.columns.items()),
        ]


def _error(bad: RequestError) -> Any:
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(str(bad), pb_utils.TritonError.INVALID_ARG)
    )
