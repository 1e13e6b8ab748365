# SPDX-License-Identifier: Apache-2.0
"""Sampling inputs on their way to TensorRT-LLM's own engine: checked, merged, renamed, cast.

The client's names are the same for every release; the names and types that the engine behind has
are those of this model's outputs. Only what was sent is given out. Left out on purpose: the seed's
default and the like, which are the engine's.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trellis.contract.client_inputs import EXCLUDE, GUIDE, GUIDE_TYPE, SKIP, STREAM, TEXT_INPUTS
from trellis.contract.sampling_fields import (
    BY_TARGET,
    FIELDS,
    NOT_DECOUPLED,
    cannot,
    check_together,
    engine_names,
    neutral,
    put,
)
from trellis.contract.tensor_types import numpy_type
from trellis.contract.wiring_names import GUIDES
from trellis.errors import RequestError
from trellis.guides.letters import rare_letters
from trellis.guides.translate import Guide
from trellis.ipc.stream_announcements import FINISH_REASON, NUM_INPUT_TOKENS, NUM_OUTPUT_TOKENS
from trellis.pipeline.guide_letters import check_letters
from trellis.pipeline.guided_decoding import GuidedDecoding, early_end, early_words
from trellis.pipeline.limits import RequestLimits
from trellis.pipeline.model_settings import ModelSettings
from trellis.pipeline.prompts import Asked, Prompts

if TYPE_CHECKING:
    from trellis.tokenizers import Tokenizer

BY_CLIENT = {spec.client: spec for spec in FIELDS.values()}
# What `postprocessing` tells of an answer where the engine does not: client's input -> bit.
TOLD = {
    "return_num_input_tokens": NUM_INPUT_TOKENS,
    "return_num_output_tokens": NUM_OUTPUT_TOKENS,
    "return_finish_reason": FINISH_REASON,
}

Values = dict[str, tuple[str, Any]]  # field's target -> (the client's name, value)


class EngineInputs:
    """Reads the sampling inputs of requests for the release that the configuration is of."""

    def __init__(self, settings: ModelSettings, no_streams: str = "") -> None:
        """`no_streams`: why no request can stream, if its answers' hook is the reason."""
        self.engine = settings.text("engine")
        self.types = settings.outputs
        self.limits = RequestLimits.read(settings)
        self.max_seq_len = settings.integer("max_seq_len")
        self.max_beam_width = settings.integer("max_beam_width") or 1
        self.prompts_per_request = settings.integer("prompts_per_request")
        self.decoupled = settings.flag("decoupled", True)
        self.no_streams = no_streams if self.decoupled else NOT_DECOUPLED
        self.exclude_input = settings.flag(EXCLUDE, False)
        self.guides: GuidedDecoding | None = None  # the release has none
        if GUIDES in settings.parameters:
            self.guides = GuidedDecoding(settings.text(GUIDES, ""))

    def read(self, arrays: Mapping[str, np.ndarray], max_tokens: list[int]) -> Asked:
        """What goes to the engine. Raises RequestError naming the input.

        `arrays`: the inputs, [rows, ...], of the dtypes in `preprocessing`'s configuration.
        `max_tokens`: of each row, checked already.
        """
        rows = len(max_tokens)
        if self.prompts_per_request and rows > self.prompts_per_request:
            raise RequestError(
                f"text_input: this engine ({self.engine}) takes one prompt a request; send {rows}"
                " requests"
            )
        sent = {name: a for name, a in arrays.items() if name not in TEXT_INPUTS and a.size}
        asked = Asked(
            streams=self._streams(sent),
            skip_special_tokens=_shared(SKIP, sent.pop(SKIP, None)),
            told=self._told(sent),
            in_front=self._in_front(sent, rows),
        )
        if asked.streams and "return_finish_reason" in asked.told:
            raise RequestError(
                f"return_finish_reason: this engine ({self.engine}) does not say which chunk of a"
                " stream is its last; leave out stream or return_finish_reason"
            )
        if self.guides is not None:
            asked.tensors |= self.guides.take(sent, rows)
        if not sent:
            return asked
        self._sampling(asked, [self._row(sent, row, max_tokens[row]) for row in range(rows)])
        for name, array in sent.items():
            if name not in BY_CLIENT and name != STREAM:
                self._other(asked, name, array, rows)
        return asked

    def check_texts(self, prompts: Prompts) -> None:
        """Raise RequestError for word lists and biases that the release does not take."""
        texts = (
            ("BAD_WORDS_IDS", "bad_words", prompts.bad_words),
            ("STOP_WORDS_IDS", "stop_words", prompts.stop_words),
            ("STOP_WORDS_IDS", "stop_token_ids", prompts.stop_token_ids),
            ("EMBEDDING_BIAS", "embedding_bias_words", prompts.bias),
        )
        for output, client, sent in texts:
            if sent and output not in self.types:
                raise RequestError(str(cannot(client, self.engine)))

    def check_guided(self, asked: Asked, prompts: Prompts, tokenizer: "Tokenizer") -> None:
        """Raise RequestError for what could end an answer where its guide does not.

        And for a guide that the model has no tokens for.
        """
        if GUIDE not in asked.tensors:
            return
        pairs = zip(asked.tensors[GUIDE_TYPE], asked.tensors[GUIDE], strict=True)
        for (kind,), (text,) in pairs:
            check_letters(rare_letters(Guide(kind, text)), tokenizer)
        known = tokenizer.end_ids
        if any(prompts.stop_words):
            raise early_words()
        more = [("stop_token_ids", token) for row in prompts.stop_token_ids for token in row]
        for name, token in [*(("end_id", token) for token in prompts.end_ids or ()), *more]:
            if token not in known:
                raise early_end(name, token, known)

    def check_id(self, asked: Asked, skips: bool) -> None:
        """Raise RequestError where `postprocessing` cannot know what a request says.

        `skips`: whether it leaves special tokens out by itself.
        """
        names = [SKIP] if asked.skip_special_tokens not in (None, skips) else []
        names += asked.told
        if names and not asked.request_id:
            raise RequestError(
                f'{names[0]}: needs an id with this engine ({self.engine}); send it as "id" at the'
                " top level, over gRPC as request_id"
            )

    def finish(self, asked: Asked, ids: list[list[int]], max_tokens: list[int]) -> None:
        """What depends on the tokens of the prompts, and on who heard. Raises RequestError."""
        if asked.unheard:
            raise RequestError(f"{asked.unheard}: postprocessing cannot be reached; leave it out")
        for row, limit in zip(ids, max_tokens, strict=True):
            if self.max_seq_len and len(row) + limit > self.max_seq_len:
                raise RequestError(
                    f"max_tokens: {limit} and a prompt of {len(row)} tokens do not fit in the"
                    f" {self.max_seq_len} tokens of this engine's context; send at most"
                    f" {max(self.max_seq_len - len(row), 0)}"
                )
        if "prompt_table_extra_ids" in asked.tensors:  # an id a token; those of text have none
            width = max(map(len, ids))
            asked.tensors["prompt_table_extra_ids"] = np.zeros((len(ids), width), np.uint64)

    def add(
        self, asked: Asked, arrays: dict[str, np.ndarray], columns: dict[str, list[Any]]
    ) -> None:
        """Add what was asked to what was read as text; leave out what the release has not.

        `arrays`: [rows, ...]; each gets the dtype of the release. `columns`: one value a row.
        """
        rows = len(columns["REQUEST_INPUT_LEN"])
        for name, values in list(columns.items()):
            if self.types.get(name, "").startswith("TYPE_UINT") and min(values) < 0:
                del columns[name]  # -1, "none", is no unsigned number
        for name in arrays.keys() & self.types.keys():
            arrays[name] = self.cast(name, arrays[name])
        if asked.streams:
            columns["streaming"] = [True] * rows
        arrays |= asked.tensors
        columns |= asked.columns

    def cast(self, name: str, array: np.ndarray) -> np.ndarray:
        """An array, [rows, ...], with the dtype that this release has for the output."""
        return array.astype(numpy_type(self.types[name]), copy=False)

    def _streams(self, sent: Mapping[str, np.ndarray]) -> bool:
        streams = bool(_shared(STREAM, sent.get(STREAM)))
        if streams and self.no_streams:
            raise RequestError(self.no_streams)
        return streams

    def _told(self, sent: dict[str, np.ndarray]) -> list[str]:
        """What `postprocessing` is to say, taken out of `sent`: the engine does not."""
        names = [name for name in TOLD if name in sent and name not in self.types]
        return [name for name in names if _shared(name, sent.pop(name))]

    def _in_front(self, sent: Mapping[str, np.ndarray], rows: int) -> list[bool]:
        """Of each row, whether its answer, if it is whole, begins with the prompt."""
        said = sent.get(EXCLUDE) if EXCLUDE in self.types else None
        if said is None:
            return [not self.exclude_input] * rows
        return [not row for row in said.reshape(rows, -1)[:, 0].tolist()]

    def _row(self, sent: Mapping[str, np.ndarray], row: int, max_tokens: int) -> Values:
        """The checked values of one row."""
        values: Values = {}
        for name, array in sent.items():
            if name in BY_CLIENT:
                put(values, BY_CLIENT[name], array.reshape(array.shape[0], -1)[row, 0].item())

        def value(target: str, default: Any) -> Any:
            return values.get(target, ("", default))[1]

        self.limits.check_sequences("num_return_sequences", value("num_return_sequences", 1))
        beams = value("beam_width", 1)
        if not self.decoupled and beams == 1 and value("num_return_sequences", 1) > 1:
            raise RequestError(
                "num_return_sequences: this repository was made with decoupled_mode:false; send 1"
            )
        if beams > self.max_beam_width:
            raise RequestError(
                f"beam_width: {beams} is more than this engine was built for, {self.max_beam_width}"
            )
        check_together(max_tokens, value("min_tokens", 0), value("length_penalty", 1.0), beams)
        if value("temperature", 1.0) == 0:  # releases divide by it: say greedy in another way
            values["top_k"] = ("temperature", 1)
            del values["temperature"]
        if value("top_p", None) == 0:  # "none", which newer releases refuse: say it as they do
            values["top_p"] = ("top_p", 1.0)
            values["top_k"] = ("top_k", value("top_k", 0) or 1)
        return values

    def _sampling(self, asked: Asked, rows: list[Values]) -> None:
        """Gather what the rows ask for; a row without a value gets the neutral one."""
        for target in dict.fromkeys(target for values in rows for target in values):
            spec = FIELDS[BY_TARGET[target][0]]
            client = next(values[target][0] for values in rows if target in values)
            column = [values.get(target, ("", spec.neutral))[1] for values in rows]
            name = next((name for name in BY_TARGET[target] if name in self.types), None)
            if name is not None:
                asked.columns[name] = column
            elif any(value != spec.neutral for value in column):
                raise cannot(client, self.engine)
            if target == "beam_width" and asked.streams and max(column) > 1:
                raise RequestError(
                    "stream: a search over beams is not streamed; leave out stream or beam_width"
                )

    def _other(self, asked: Asked, client: str, array: np.ndarray, rows: int) -> None:
        """Flags, ids and tables, which need no check but that the release has them."""
        name = next((name for name in engine_names(client) if name in self.types), None)
        if client == EXCLUDE and asked.streams:
            array = np.ones((rows, 1), np.bool_)  # a stream has new tokens alone, whatever is said
        if name is not None:
            sent = self.cast(name, array.reshape(rows, -1))
            asked.tensors[name] = sent | asked.tensors[name] if name in asked.tensors else sent
        elif client == EXCLUDE:
            if not asked.streams and (array != self.exclude_input).any():
                fixed = str(self.exclude_input).lower()
                raise RequestError(
                    f"{client}: with this engine ({self.engine}) it is {fixed} for every request;"
                    " leave it out"
                )
        elif not neutral(array):
            raise cannot(client, self.engine)


def _shared(name: str, flags: np.ndarray | None) -> bool | None:
    """What all rows say, if anything. Raises RequestError if they differ."""
    if flags is None:
        return None
    if flags.any() != flags.all():
        raise RequestError(f"{name}: the prompts of one request must share it")
    return bool(flags.all())
