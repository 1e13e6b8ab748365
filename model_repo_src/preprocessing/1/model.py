"""`preprocessing`: text to token ids, a whole dynamic batch at a time.

The first step of the ensemble. It turns the client's text, word lists and ids into the tensors of
`tensorrt_llm` and gives every row a `stream_key` under which `postprocessing` keeps its state.
TensorRT-LLM's own engines pass no key on: for them see `engine_inputs.py` and `id_streams.py`.
A bad request is answered with an error that names its field; the others of its batch go on.
"""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The embedded interpreter searches site-packages before this folder: what is assembled here wins.
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import triton_python_backend_utils as pb_utils
from engine_inputs import EngineInputs
from id_streams import IdStreams
from kept_tensors import column
from prompts import BadRequest, Limits, Prompts, read_prompts
from repository import ModelSettings, load_tokenizer
from server_lifetime import end_with_server
from stream_keys import StreamKeys
from tensors import embedding_bias, padded_ids, padded_words


@dataclass(frozen=True, slots=True)
class Stop:
    """A request that ends those of the same id: it needs no prompt, and what it has is not read."""

    rows: int
    texts: tuple[str, ...] = ()


class TritonPythonModel:
    """Triton's entry point: `initialize` once, `execute` a batch of requests."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer named in the parameters; raises with the parameter's name."""
        end_with_server()
        settings = ModelSettings.read(args)
        self.tokenizer = load_tokenizer(settings)
        self.vocab_size = settings.integer("vocab_size") or self.tokenizer.vocab_size
        self.outputs = {
            name: pb_utils.triton_string_to_numpy(kind) for name, kind in settings.outputs.items()
        }
        self.keys = StreamKeys()
        own_engine = settings.text("engine", "")  # set where TensorRT-LLM itself is behind
        self.engine_inputs = EngineInputs(settings) if own_engine else None
        self.id_streams = IdStreams(settings.folder.parent.parent) if own_engine else None
        self.limits = Limits.read(settings, self.vocab_size)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request, in order, with its tensors or its own error."""
        read = [self._read(request) for request in requests]
        texts = [text for item in read if not isinstance(item, BadRequest) for text in item.texts]
        encoded = iter(self._encode(texts))
        if self.id_streams is not None:
            self.id_streams.begin(read)
        return [
            _error(item)
            if isinstance(item, BadRequest)
            else self._respond(item, [next(encoded) for _ in item.texts])
            for item in read
        ]

    def _read(self, request: Any) -> "Prompts | Stop | BadRequest":
        try:
            arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            if "STOP" in arrays and arrays["STOP"].any():
                return _stop(arrays["STOP"], _request_id(request))
            prompts = read_prompts(arrays, self.limits)
            if self.engine_inputs is not None:
                self.engine_inputs.check_texts(prompts)
                prompts.asked = self.engine_inputs.read(arrays, prompts.max_tokens)
                prompts.asked.request_id = _request_id(request)
            return prompts
        except BadRequest as bad:
            return bad
        except Exception as error:  # this request's alone, whatever it is
            return BadRequest(f"the request could not be read: {error}")

    def _encode(self, texts: list[str]) -> list[list[int] | Exception]:
        """All rows of all requests in one call; one by one only if a text makes that call fail."""
        try:
            return list(self.tokenizer.encode_batch(texts))
        except Exception:
            return [self._encode_one(text) for text in texts]

    def _encode_one(self, text: str) -> list[int] | Exception:
        try:
            return list(self.tokenizer.encode(text))
        except Exception as error:
            logging.getLogger("trellis.preprocessing").exception("a prompt could not be encoded")
            return error

    def _respond(self, prompts: Prompts | Stop, rows: list[list[int] | Exception]) -> Any:
        try:
            if isinstance(prompts, Stop):
                return pb_utils.InferenceResponse(self._stop_tensors(prompts.rows))
            ids = [self.limits.check_ids(row) for row in rows]
            if self.engine_inputs is not None and prompts.asked is not None:
                self.engine_inputs.finish(prompts.asked, ids, prompts.max_tokens)
            return pb_utils.InferenceResponse(self._tensors(prompts, ids))
        except BadRequest as bad:
            return _error(bad)
        except Exception as error:  # this request's alone, whatever it is
            return _error(BadRequest(f"the request could not be prepared: {error}"))

    def _stop_tensors(self, rows: int) -> list[Any]:
        """What the engine's contract wants of every request; of a stop, none of it is read."""
        ones = np.ones((rows, 1), np.int32)
        arrays = dict.fromkeys(("INPUT_ID", "REQUEST_INPUT_LEN", "REQUEST_OUTPUT_LEN"), ones)
        if self.engine_inputs is not None:
            arrays = {name: self.engine_inputs.cast(name, ones) for name in arrays}
        if "stream_key" in self.outputs:
            arrays["stream_key"] = self.keys.take(rows)
        return [pb_utils.Tensor(name, array) for name, array in arrays.items()]

    def _tensors(self, prompts: Prompts, ids: list[list[int]]) -> list[Any]:
        """The outputs that this release and this request use; ensembles pass on what is there."""
        rows = len(ids)
        arrays = {"INPUT_ID": padded_ids(ids, prompts.pad_id or self.tokenizer.pad_id or 0)}
        columns: dict[str, list[Any]] = {  # one value a row
            "REQUEST_INPUT_LEN": [len(row) for row in ids],
            "REQUEST_OUTPUT_LEN": prompts.max_tokens,
        }
        if "stream_key" in self.outputs:
            arrays["stream_key"] = self.keys.take(rows)
            columns["ensemble_step"] = [True] * rows
        end_id = self.tokenizer.eos_id if prompts.end_id is None else prompts.end_id
        if end_id is not None:
            columns["OUT_END_ID"] = [end_id] * rows
        pad_id = self.tokenizer.pad_id if prompts.pad_id is None else prompts.pad_id
        if pad_id is not None:
            columns["OUT_PAD_ID"] = [pad_id] * rows
        if prompts.bad_words and "BAD_WORDS_IDS" in self.outputs:
            arrays["BAD_WORDS_IDS"] = padded_words(self.tokenizer, prompts.bad_words)
        if prompts.stop_words and "STOP_WORDS_IDS" in self.outputs:
            arrays["STOP_WORDS_IDS"] = padded_words(self.tokenizer, prompts.stop_words)
        if prompts.bias and "EMBEDDING_BIAS" in self.outputs:
            arrays["EMBEDDING_BIAS"] = embedding_bias(self.tokenizer, prompts.bias, self.vocab_size)
        if self.engine_inputs is not None and prompts.asked is not None:
            self.engine_inputs.add(prompts.asked, arrays, columns)
        types = self.outputs
        return [
            *(pb_utils.Tensor(name, array) for name, array in arrays.items() if name in types),
            *(
                column(name, values, types[name])
                for name, values in columns.items()
                if name in types
            ),
        ]


def _stop(flags: np.ndarray, request_id: str) -> Stop:
    if not flags.all():
        raise BadRequest("stop: the prompts of one request must share it")
    if not request_id:
        raise BadRequest(
            'stop: needs the id of the request to end; send it as "id" at the top level, over gRPC'
            " as request_id"
        )
    return Stop(rows=len(flags))


def _request_id(request: Any) -> str:
    try:
        return str(request.request_id())
    except UnicodeDecodeError as error:
        raise BadRequest("id: not valid UTF-8") from error


def _error(bad: BadRequest) -> Any:
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(str(bad), pb_utils.TritonError.INVALID_ARG)
    )
