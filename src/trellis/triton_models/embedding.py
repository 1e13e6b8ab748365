# SPDX-License-Identifier: Apache-2.0
"""An embedding model: texts or ids to vectors, a whole dynamic batch at a time.

A bad request is answered with an error that names its field; the others of its batch go on.
"""

import logging
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from trellis.engine_host.engines.openvino_embedding import OpenVinoEmbedding
from trellis.errors import RequestError
from trellis.ipc.heartbeats import heartbeats
from trellis.ipc.process_state import show_stacks_on_signal
from trellis.ipc.server_lifetime import end_with_server
from trellis.ipc.stalls import PROMPT_TOKENS
from trellis.pipeline.model_settings import ModelSettings, load_tokenizer
from trellis.pipeline.prompts import decode_utf8
from trellis.tokenizers import TokenizerError

TEXT, IDS, LENGTHS = "text_input", "input_ids", "input_lengths"

logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")


class TritonPythonModel:
    """Triton's entry point: `initialize` once, `execute` a batch of requests."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model and the tokenizer; raises with the parameter's name."""
        end_with_server()
        show_stacks_on_signal()
        settings = ModelSettings.read(args)
        self.heartbeat = heartbeats().claim(f"the process of {settings.name}")
        self._tokenizer = load_tokenizer(settings)
        self._most = settings.integer("max_seq_len")
        self._most_bytes = settings.integer("max_prompt_bytes")
        self._engine = OpenVinoEmbedding(
            settings.path("engine_dir", "."),
            settings.text("pooling"),
            settings.flag("normalize", True),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request, in order, with its vectors or its own error."""
        with self.heartbeat.working():
            return self._embed(requests)

    def finalize(self) -> None:
        """It ends as it should."""
        self.heartbeat.release()

    def _embed(self, requests: list[Any]) -> list[Any]:
        read = [self._read(request) for request in requests]
        prompts = [ids for item in read if isinstance(item, list) for ids in item]
        self.heartbeat.allow(sum(map(len, prompts)) / PROMPT_TOKENS)
        try:
            vectors = iter(self._engine.embed(prompts) if prompts else ())
        except Exception as error:
            failed = _error(
                RequestError(f"the model failed: {error}"), pb_utils.TritonError.INTERNAL
            )
            return [failed if isinstance(item, list) else _error(item) for item in read]
        return [
            _answer(item, [next(vectors) for _ in item]) if isinstance(item, list) else _error(item)
            for item in read
        ]

    def _read(self, request: Any) -> list[list[int]] | RequestError:
        """The ids of each text of a request, or what is wrong with it."""
        try:
            arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            if (TEXT in arrays) == (IDS in arrays):
                raise RequestError(f"{TEXT}: send either {TEXT}, or {IDS} and {LENGTHS}")
            found = self._ids(arrays) if IDS in arrays else self._encoded(arrays[TEXT])
            for ids in found:
                self._check(ids, IDS if IDS in arrays else TEXT)
        except RequestError as bad:
            return bad
        except Exception as error:  # this request's alone, whatever it is
            return RequestError(f"the request could not be read: {error}")
        return found

    def _encoded(self, texts: np.ndarray) -> list[list[int]]:
        read = [decode_utf8(TEXT, text) for text in texts.reshape(-1)]
        for text in read:
            size = len(text.encode())
            if self._most_bytes and size > self._most_bytes:
                raise RequestError(f"{TEXT}: {size} bytes; send at most {self._most_bytes}")
        try:
            return self._tokenizer.encode_batch(read)
        except TokenizerError as error:
            raise RequestError(f"{TEXT}: {error}") from None

    def _ids(self, arrays: dict[str, np.ndarray]) -> list[list[int]]:
        """Of [n, most] INT32, the first of each row."""
        rows = arrays[IDS]
        lengths = arrays.get(LENGTHS, np.full((len(rows), 1), rows.shape[-1])).reshape(-1)
        if len(lengths) != len(rows) or (lengths > rows.shape[-1]).any():
            raise RequestError(f"{LENGTHS}: more than {IDS} has; send one for each row")
        return [row[: max(length, 0)].tolist() for row, length in zip(rows, lengths, strict=True)]

    def _check(self, ids: list[int], name: str) -> None:
        if not ids:
            raise RequestError(f"{name}: empty; send some text")
        most = self._tokenizer.vocab_size - 1
        if min(ids) < 0 or max(ids) > most:
            raise RequestError(f"{name}: an id is not in the vocabulary; send 0 to {most}")
        if self._most and len(ids) > self._most:
            raise RequestError(
                f"{name}: {len(ids)} tokens do not fit into the model's {self._most}; send a"
                " shorter text"
            )


def _answer(prompts: list[list[int]], vectors: list[np.ndarray]) -> Any:
    counts = np.array([[len(ids)] for ids in prompts], np.int32)
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("embedding", np.stack(vectors)),
            pb_utils.Tensor("num_input_tokens", counts),
        ]
    )


def _error(bad: RequestError, code: Any = None) -> Any:
    kind = pb_utils.TritonError.INVALID_ARG if code is None else code
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(bad), kind))
