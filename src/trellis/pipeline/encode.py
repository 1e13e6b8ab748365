# SPDX-License-Identifier: Apache-2.0
"""From what a client sent to what the engine gets: all of `preprocessing` but Triton's part.

`triton_models/preprocessing.py` runs it between Triton's tensors; the gateway runs it on what it
reads as JSON, so that both ways are the same code.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trellis.contract.tensor_types import numpy_type
from trellis.errors import RequestError, one_line
from trellis.ipc.stream_announcements import CountedPrompt
from trellis.ipc.stream_keys import StreamKeys
from trellis.panics import guarded
from trellis.pipeline.engine_inputs import EngineInputs
from trellis.pipeline.hooks import HookError, load_hooks
from trellis.pipeline.model_settings import ModelSettings, load_tokenizer
from trellis.pipeline.prompts import Limits, Prompts, read_prompts
from trellis.pipeline.tensors import embedding_bias, filled_up, padded_ids, padded_words

if TYPE_CHECKING:
    from trellis.tokenizers import Tokenizer

log = logging.getLogger("trellis.preprocessing")
Row = list[int] | Exception  # the ids of a prompt, or why there are none


@dataclass(frozen=True, slots=True)
class Stop:
    """A request that ends those of the same id: it needs no prompt, and what it has is not read."""

    rows: int
    request_id: str
    texts: tuple[str, ...] = ()


class Outputs(NamedTuple):
    """What `preprocessing` gives out for a request, by the names of its outputs."""

    arrays: dict[str, np.ndarray]  # [rows, ...], of the dtypes in its configuration
    columns: dict[str, list[Any]]  # [rows, 1]: one value a row


class Preprocessor:
    """Reads requests, encodes their texts, makes the engine's inputs.

    Raises RequestError for what the client did; whoever calls answers for whatever else is raised.
    """

    def __init__(self, settings: ModelSettings, tokenizer: "Tokenizer | None" = None) -> None:
        """`tokenizer`: the one of the settings, if it is loaded. Raises ConfigError, HookError."""
        hooks = load_hooks(settings.folder)
        self._prompt_hook = hooks.prompt
        self.tokenizer = tokenizer or load_tokenizer(settings)
        self.thread_safe = self.tokenizer.thread_safe
        self.vocab_size = settings.integer("vocab_size") or self.tokenizer.vocab_size
        # Tokens of images and sounds may lie beyond the vocabulary of the engine.
        self._beyond = self.tokenizer.vocab_size > self.vocab_size
        self.types = {name: numpy_type(kind) for name, kind in settings.outputs.items()}
        self.keys = StreamKeys()
        # Set where TensorRT-LLM itself is behind.
        engine = settings.text("engine", "")
        no_streams = hooks.no_streams(engine)
        self.engine_inputs = EngineInputs(settings, no_streams) if engine else None
        self.limits = Limits.read(settings, self.vocab_size)
        # Where a request has no end_id; further ones that the engine cannot make need no watching.
        self._end_ids = [
            token
            for token in self.tokenizer.end_ids
            if token < self.vocab_size or token == self.tokenizer.eos_id
        ]
        if self._end_ids[1:] and not self.types.keys() & {"OUT_STOP_TOKEN_IDS", "STOP_WORDS_IDS"}:
            log.warning(
                "this engine ends an answer at one id; it goes on after %s", self._end_ids[1:]
            )

    def read(
        self, arrays: Mapping[str, np.ndarray], request_id: Callable[[], str], of_ids: bool = False
    ) -> Prompts | Stop:
        """One request, checked.

        `arrays`: its inputs, [rows, ...], of the dtypes in `preprocessing`'s configuration.
        `of_ids`: whether its one prompt is ids, which the caller has.
        """
        if "STOP" in arrays and arrays["STOP"].any():
            return _stop(arrays["STOP"], _id(request_id))
        prompts = read_prompts(arrays, self.limits, of_ids)
        if self.engine_inputs is not None:
            self.engine_inputs.check_texts(prompts)
            prompts.asked = self.engine_inputs.read(arrays, prompts.max_tokens)
            prompts.asked.request_id = _id(request_id)
            self.engine_inputs.check_guided(prompts.asked, prompts, self.tokenizer)
            self.engine_inputs.check_id(prompts.asked, self.tokenizer.skip_special_tokens)
        return prompts

    def encode_bare(self, text: str, encode: Callable[[str], list[int]]) -> Row:
        """A prompt that says itself whether it has a BOS, as a chat template's does.

        `encode`: the tokenizer's `encode_bare`, or what equals it.
        """
        edited = text if self._prompt_hook is None else self._edit(text)
        return self._encode_one(edited, encode) if isinstance(edited, str) else edited

    def encode(self, texts: Sequence[str]) -> list[Row]:
        """All texts in one call; one by one only if one of them makes that call fail."""
        if self._prompt_hook is None:
            return self._encode_all(texts)
        edited = [self._edit(text) for text in texts]
        rows = iter(self._encode_all([text for text in edited if isinstance(text, str)]))
        return [next(rows) if isinstance(text, str) else text for text in edited]

    def _edit(self, text: str) -> str | HookError:
        """A prompt's text as its hook has it, or why it has none."""
        assert self._prompt_hook is not None
        try:
            return self._prompt_hook(text)
        except HookError as error:
            log.error("a prompt could not be edited: %s", one_line(error))
            return error

    def _encode_all(self, texts: Sequence[str]) -> list[Row]:
        try:
            return list(guarded(self.tokenizer.encode_batch, texts))
        except Exception:
            return [self._encode_one(text, self.tokenizer.encode) for text in texts]

    def _encode_one(self, text: str, encode: Callable[[str], list[int]]) -> Row:
        try:
            return list(guarded(encode, text))
        except Exception as error:
            log.error("a prompt could not be encoded: %s", one_line(error))
            return error

    def counted(self, prompts: Prompts, rows: Sequence[Row]) -> tuple[CountedPrompt, ...]:
        """What `postprocessing` counts the answer by; `rows` are the ids of its texts."""
        assert prompts.asked is not None
        firsts = prompts.end_ids or self._end_ids[:1] * len(rows)
        more = self._further_ends(prompts, len(rows)) or [[]] * len(rows)
        ends = [[*firsts[at : at + 1], *more[at]] for at in range(len(rows))]
        lengths = [0 if isinstance(row, Exception) else len(row) for row in rows]
        whole = not prompts.asked.streams
        return tuple(
            CountedPrompt(length, length * (whole and in_front), most, tuple(ids))
            for length, in_front, most, ids in zip(
                lengths, prompts.asked.in_front, prompts.max_tokens, ends, strict=True
            )
        )

    def outputs(self, prompts: Prompts | Stop, rows: Sequence[Row]) -> Outputs:
        """What goes out for a request; `rows` are the ids of its texts."""
        if isinstance(prompts, Stop):
            return Outputs(self._stop_arrays(prompts.rows), {})
        ids = [self.limits.check_ids(row) for row in rows]
        if self._beyond:
            self._check_known(ids)
        if self.engine_inputs is not None and prompts.asked is not None:
            self.engine_inputs.finish(prompts.asked, ids, prompts.max_tokens)
        return self._outputs(prompts, ids)

    def _check_known(self, rows: Sequence[Sequence[int]]) -> None:
        """Raise RequestError for a token that the engine does not have."""
        token = max(map(max, rows))
        if token >= self.vocab_size:
            text = guarded(self.tokenizer.decode, [token], skip_special_tokens=False)
            raise RequestError(
                f"text_input: {text!r} is the token {token}, which this engine does not have; it"
                f" knows 0 to {self.vocab_size - 1}"
            )

    def _stop_arrays(self, rows: int) -> dict[str, np.ndarray]:
        """What the engine's contract wants of every request; of a stop, none of it is read."""
        ones = np.ones((rows, 1), np.int32)
        arrays = dict.fromkeys(("INPUT_ID", "REQUEST_INPUT_LEN", "REQUEST_OUTPUT_LEN"), ones)
        if self.engine_inputs is not None:
            arrays = {name: self.engine_inputs.cast(name, ones) for name in arrays}
        if "stream_key" in self.types:
            arrays["stream_key"] = self.keys.take(rows)
        return arrays

    def _outputs(self, prompts: Prompts, ids: list[list[int]]) -> Outputs:
        """What this release and this request use; ensembles pass on what is there."""
        rows, types = len(ids), self.types
        arrays = {"INPUT_ID": padded_ids(ids, prompts.pad_id or self.tokenizer.pad_id or 0)}
        columns: dict[str, list[Any]] = {
            "REQUEST_INPUT_LEN": [len(row) for row in ids],
            "REQUEST_OUTPUT_LEN": prompts.max_tokens,
        }
        if "stream_key" in types:
            arrays["stream_key"] = self.keys.take(rows)
            columns["ensemble_step"] = [True] * rows
        end_ids = prompts.end_ids or self._end_ids[:1] * rows
        if end_ids:
            columns["OUT_END_ID"] = end_ids
        pad_id = self.tokenizer.pad_id if prompts.pad_id is None else prompts.pad_id
        if pad_id is not None:
            columns["OUT_PAD_ID"] = [pad_id] * rows
        # As TensorRT-LLM's own `preprocessing` says that there is no decoder's prompt.
        columns["DECODER_INPUT_ID"] = [0 if pad_id is None else pad_id] * rows
        columns["REQUEST_DECODER_INPUT_LEN"] = [1] * rows
        ends = self._further_ends(prompts, rows)
        if ends and "OUT_STOP_TOKEN_IDS" in types:
            arrays["OUT_STOP_TOKEN_IDS"] = filled_up(ends)
        if prompts.bad_words and "BAD_WORDS_IDS" in types:
            arrays["BAD_WORDS_IDS"] = padded_words(self.tokenizer, prompts.bad_words)
        if (prompts.stop_words or ends) and "STOP_WORDS_IDS" in types:
            words = prompts.stop_words or [[]] * rows
            arrays["STOP_WORDS_IDS"] = padded_words(self.tokenizer, words, ends)
        if prompts.bias and "EMBEDDING_BIAS" in types:
            arrays["EMBEDDING_BIAS"] = embedding_bias(self.tokenizer, prompts.bias, self.vocab_size)
        if self.engine_inputs is not None and prompts.asked is not None:
            self.engine_inputs.add(prompts.asked, arrays, columns)
        return Outputs(
            {name: array for name, array in arrays.items() if name in types},
            {name: values for name, values in columns.items() if name in types},
        )

    def _further_ends(self, prompts: Prompts, rows: int) -> list[list[int]]:
        """The ids that end each row's answer besides its end_id; an empty list if there are none.

        An `end_id` replaces all of the tokenizer's; `stop_token_ids` are added to either.
        """
        more = self._end_ids[1:] if prompts.end_ids is None else []
        if not prompts.stop_token_ids:
            return [more] * rows if more else []
        first = prompts.end_ids or self._end_ids[:1] * rows or [-1] * rows
        ends = [
            [token for token in dict.fromkeys([*more, *ids]) if token != end_id]
            for end_id, ids in zip(first, prompts.stop_token_ids, strict=True)
        ]
        return ends if any(ends) else []


def _stop(flags: np.ndarray, request_id: str) -> Stop:
    if not flags.all():
        raise RequestError("stop: the prompts of one request must share it")
    if not request_id:
        raise RequestError(
            'stop: needs the id of the request to end; send it as "id" at the top level, over gRPC'
            " as request_id"
        )
    return Stop(len(flags), request_id)


def _id(request_id: Callable[[], str]) -> str:
    try:
        return str(request_id())
    except UnicodeDecodeError as error:
        raise RequestError("id: not valid UTF-8") from error
