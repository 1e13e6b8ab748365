# SPDX-License-Identifier: Apache-2.0
"""`postprocessing`: token ids to text, for whole answers and for streams.

The last step of the ensemble. Each chunk of a stream is decoded with the state its key names, so
that the chunks, joined, are the text of all the tokens decoded at once. TensorRT-LLM's own engine
passes no key on: for its answers see `engine_answers.py`.
"""

import logging
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from trellis.contract.model_names import model_of
from trellis.errors import RequestError, one_line
from trellis.ipc.chunk_counts import CountsServer
from trellis.ipc.heartbeats import heartbeats
from trellis.ipc.process_state import show_stacks_on_signal
from trellis.ipc.server_lifetime import end_with_server
from trellis.pipeline.decode import Detokenizer, failure
from trellis.pipeline.engine_answers import EngineAnswers
from trellis.pipeline.hooks import load_hooks
from trellis.pipeline.model_settings import ModelSettings, load_tokenizer
from trellis.pipeline.streams import StreamTable
from trellis.triton_models.text_tensors import text_tensor, texts_tensor

log = logging.getLogger("trellis.postprocessing")


class TritonPythonModel:
    """Triton's entry point. One instance only: the streams' state lives in its process."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer named in the parameters; raises with the parameter's name."""
        end_with_server()
        show_stacks_on_signal()
        settings = ModelSettings.read(args)
        self.heartbeat = heartbeats().claim(f"the process of {settings.name}")
        own_engine = settings.text("engine", "")  # set where TensorRT-LLM itself is before this
        hooks = load_hooks(settings.folder)
        self.detokenizer = Detokenizer.of(load_tokenizer(settings), bool(own_engine), hooks)
        self.streams = StreamTable(
            self.detokenizer,
            max_streams=settings.integer("max_streams") or 65536,
            quiet_seconds=settings.integer("stream_quiet_seconds") or 600,
        )
        self.engine_answers = EngineAnswers(self.detokenizer, settings) if own_engine else None
        self.counts = None if own_engine else CountsServer(self.streams, model_of(settings.name))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request, in order."""
        if self.engine_answers is not None:
            self.engine_answers.begin_batch()
        with self.heartbeat.working(), self.streams.lock:
            return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """End the threads that listen, if there are any."""
        self.heartbeat.release()
        if self.engine_answers is not None:
            self.engine_answers.close()
        if self.counts is not None:
            self.counts.close()

    def _answer(self, request: Any) -> Any:
        try:
            arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            if self.engine_answers is not None:
                text, told = self.engine_answers.answer(request.request_id(), arrays)
            else:
                text, told = self._text(arrays), {}
            tensor = text_tensor(text) if isinstance(text, str) else texts_tensor(text)
            more = [pb_utils.Tensor(name, array) for name, array in told.items()]
            return pb_utils.InferenceResponse([tensor, *more])
        except RequestError as bad:
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError(str(bad), pb_utils.TritonError.INVALID_ARG)
            )
        except Exception as error:
            log.error("tokens could not be decoded: %s", one_line(error))
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(failure(error)))

    def _text(self, arrays: dict[str, np.ndarray]) -> "str | np.ndarray":
        """The text of TOKENS_BATCH [1, 1, n]; of [rows, sequences, n] an array of UTF-8."""
        tokens = arrays.get("TOKENS_BATCH")
        if tokens is None:  # where some are optional, Triton lets others be left out too
            raise RequestError("TOKENS_BATCH: missing")
        cuts = arrays.get("TEXT_CUT")
        if cuts is not None and cuts.shape != tokens.shape[:2]:
            raise RequestError(f"TEXT_CUT: {list(cuts.shape)}; send {list(tokens.shape[:2])}")
        flags = arrays.get("SKIP_SPECIAL_TOKENS")
        skip = None if flags is None else bool(flags.item(0))
        if tokens.shape[:2] == (1, 1) and "STREAM_KEY" in arrays:  # what nearly every answer is
            if "STREAM_END" not in arrays:
                raise RequestError("STREAM_END: missing; a stream needs it in every chunk")
            key, ended = arrays["STREAM_KEY"].item(0), arrays["STREAM_END"].item(0)
            cut = 0 if cuts is None else cuts.item(0)
            return self.streams.decode(key, tokens[0, 0].tolist(), ended, skip, cut)
        texts = self._whole(tokens, _lengths(arrays, tokens.shape), cuts, skip)
        array = np.empty(tokens.shape[:2], np.object_)
        array.reshape(-1)[:] = [text.encode() for text in texts]
        return array

    def _whole(
        self,
        tokens: np.ndarray,
        lengths: np.ndarray,
        cuts: np.ndarray | None,
        skip: bool | None,
    ) -> list[str]:
        """The texts of an answer that came in one piece."""
        texts = []
        for at in np.ndindex(tokens.shape[:2]):
            cut = 0 if cuts is None else int(cuts[at])
            texts.append(self.detokenizer.whole(tokens[at][: lengths[at]].tolist(), skip, cut))
        return texts


def _lengths(arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """SEQUENCE_LENGTH, [rows, sequences]; one sequence needs none. Raises RequestError.

    `shape`: of TOKENS_BATCH.
    """
    lengths = arrays.get("SEQUENCE_LENGTH")
    if lengths is None and shape[:2] == (1, 1):
        return np.full((1, 1), shape[2])
    if lengths is None:
        raise RequestError("SEQUENCE_LENGTH: missing; several sequences need it")
    if lengths.shape != shape[:2]:
        raise RequestError(f"SEQUENCE_LENGTH: {list(lengths.shape)}; send {list(shape[:2])}")
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= shape[2]:
        raise RequestError(f"SEQUENCE_LENGTH: {lengths.tolist()}; send 0 to {shape[2]}")
    return lengths
