# SPDX-License-Identifier: Apache-2.0
"""What a client asked of `preprocessing`, read from the request's tensors and checked.

Messages name the ensemble's inputs (`text_input`, `max_tokens`), which is what the client sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trellis.contract.client_inputs import TEXT_INPUTS
from trellis.errors import RequestError
from trellis.pipeline.hooks import HookError
from trellis.pipeline.limits import RequestLimits
from trellis.pipeline.model_settings import ModelSettings
from trellis.tokenizers import parse_words


@dataclass(slots=True)
class Asked:
    """What one request asks of the engine, under its names, and whether it streams."""

    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    columns: dict[str, list[Any]] = field(default_factory=dict)  # one value a row
    streams: bool = False
    request_id: str = ""
    skip_special_tokens: bool | None = None  # for `postprocessing`; None: as it was loaded
    told: list[str] = field(default_factory=list)  # of TOLD, what it is to say
    in_front: list[bool] = field(default_factory=list)  # a row: its answer begins with the prompt
    unheard: str = ""  # the input of which `postprocessing` could not be told


@dataclass(slots=True)
class Prompts:
    """One request: a row for each prompt of the client's batch."""

    texts: list[str]
    max_tokens: list[int]  # one a row
    end_ids: list[int] | None  # one a row, -1 for none; None: the tokenizer's
    pad_id: int | None
    stop_token_ids: list[list[int]] = field(default_factory=list)  # of each row, besides those
    bad_words: list[list[str]] = field(default_factory=list)
    stop_words: list[list[str]] = field(default_factory=list)
    bias: list[list[tuple[str, float]]] = field(default_factory=list)
    asked: Asked | None = None  # of TensorRT-LLM's own engine


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask. `None` is no limit."""

    vocab_size: int
    max_input_len: int | None = None
    max_prompt_bytes: int | None = None
    request: RequestLimits = field(default_factory=RequestLimits)

    @classmethod
    def read(cls, settings: ModelSettings, vocab_size: int) -> "Limits":
        """The limits of config.pbtxt. Raises ConfigError for one that is no whole number."""
        return cls(
            vocab_size=vocab_size,
            max_input_len=settings.integer("max_input_len"),
            max_prompt_bytes=settings.integer("max_prompt_bytes"),
            request=RequestLimits.read(settings),
        )

    def check_text(self, text: bytes) -> str:
        """Decode one prompt. Raises RequestError if it is empty, too long or not UTF-8."""
        if not text:
            raise RequestError("text_input: the prompt is empty; send some text")
        if self.max_prompt_bytes is not None and len(text) > self.max_prompt_bytes:
            raise RequestError(
                f"text_input: the prompt has {len(text)} bytes; send at most"
                f" {self.max_prompt_bytes} (max_prompt_bytes)"
            )
        return decode_utf8("text_input", text)

    def check_ids(self, ids: "list[int] | Exception") -> list[int]:
        """Check one encoded prompt. Raises RequestError if it has no tokens or too many."""
        if isinstance(ids, HookError):
            raise RequestError(f"text_input: {ids}") from ids
        if isinstance(ids, Exception):
            raise RequestError(f"text_input: the tokenizer failed: {ids}") from ids
        if not ids:
            raise RequestError("text_input: the prompt has no tokens; send some text")
        if self.max_input_len and len(ids) > self.max_input_len:
            raise RequestError(
                f"text_input: the prompt has {len(ids)} tokens, this engine takes at most"
                f" {self.max_input_len} (max_input_len); shorten the prompt"
            )
        return ids

    def check_id(self, name: str, value: int) -> int:
        """Check a token id; -1 stands for "none", as TensorRT-LLM takes it."""
        if not -1 <= value < self.vocab_size:
            raise RequestError(
                f"{name}: {value} is not in the vocabulary; use 0 to {self.vocab_size - 1},"
                " or -1 for none"
            )
        return value


def read_prompts(arrays: Mapping[str, np.ndarray], limits: Limits, of_ids: bool = False) -> Prompts:
    """Read and check one request. Raises RequestError naming the input that is wrong.

    `arrays`: the inputs, [rows, ...], of the dtypes in `preprocessing`'s configuration.
    `of_ids`: whether its one prompt is ids, which the caller has; then its text is "".
    """
    texts = [""] if of_ids else _texts(arrays.get("QUERY"), limits)
    prompts = _read(texts, arrays, limits)
    limits.request.check_max_tokens(max(prompts.max_tokens))
    limits.request.check_stop_token_ids(max(map(len, prompts.stop_token_ids), default=0))
    for name, rows in (("bad_words", prompts.bad_words), ("stop_words", prompts.stop_words)):
        for words in rows:
            limits.request.check_words(name, words)
    for pairs in prompts.bias:
        limits.request.check_words("embedding_bias_words", [word for word, _ in pairs])
    return prompts


def _texts(query: np.ndarray | None, limits: Limits) -> list[str]:
    if query is None or not query.size:
        raise RequestError("text_input: missing; send the prompt")
    limits.request.check_prompts(query.size)
    return [limits.check_text(_bytes(text)) for text in query.reshape(-1).tolist()]


def _read(texts: list[str], arrays: Mapping[str, np.ndarray], limits: Limits) -> Prompts:
    rows = len(texts)
    decoder_query = arrays.get("DECODER_QUERY")
    if decoder_query is not None and any(_bytes(text) for text in decoder_query.reshape(-1)):
        raise RequestError("decoder_text_input: this engine has no decoder prompt; leave it out")
    return Prompts(
        texts=texts,
        max_tokens=_max_tokens(arrays.get("REQUEST_OUTPUT_LEN"), rows),
        end_ids=_token_ids("END_ID", arrays, limits),
        pad_id=_pad_id(arrays, limits),
        stop_token_ids=_stop_token_ids(arrays, rows, limits),
        bad_words=_words("BAD_WORDS_DICT", arrays, rows),
        stop_words=_words("STOP_WORDS_DICT", arrays, rows),
        bias=_bias(arrays, rows),
    )


def decode_utf8(name: str, value: bytes) -> str:
    """UTF-8 to text. Raises RequestError that says where the first wrong byte is."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{name}: not valid UTF-8 at byte {error.start} ({error.reason})"
        ) from error


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def _max_tokens(array: np.ndarray | None, rows: int) -> list[int]:
    if array is None or not array.size:
        raise RequestError("max_tokens: missing; send the number of tokens to generate")
    values: list[int] = [row[0] for row in array.reshape(rows, -1).tolist()]
    if min(values) < 1:
        raise RequestError(f"max_tokens: {min(values)} is not allowed; send 1 or more")
    return values


def _token_ids(tensor: str, arrays: Mapping[str, np.ndarray], limits: Limits) -> list[int] | None:
    """One id a row, -1 for none; None if there are none at all."""
    array = arrays.get(tensor)
    if array is None or not array.size:
        return None
    values = array.reshape(-1).astype(np.int32).tolist()  # unsigned in the oldest releases
    return [limits.check_id(TEXT_INPUTS[tensor], value) for value in values]


def _pad_id(arrays: Mapping[str, np.ndarray], limits: Limits) -> int | None:
    values = _token_ids("PAD_ID", arrays, limits)
    if values and len(set(values)) > 1:
        raise RequestError(
            f"pad_id: the prompts of one request must share it; got {sorted(set(values))}"
        )
    return values[0] if values else None


def _stop_token_ids(arrays: Mapping[str, np.ndarray], rows: int, limits: Limits) -> list[list[int]]:
    """One list of ids a row, each once; an empty list if there are none at all."""
    array = arrays.get("STOP_TOKEN_IDS")
    if array is None or not array.size:
        return []
    ids: list[list[int]] = [list(dict.fromkeys(row)) for row in array.reshape(rows, -1).tolist()]
    for value in (value for row in ids for value in row):
        if not 0 <= value < limits.vocab_size:
            raise RequestError(
                f"stop_token_ids: {value} is not in the vocabulary; use 0 to"
                f" {limits.vocab_size - 1}"
            )
    return ids


def _words(tensor: str, arrays: Mapping[str, np.ndarray], rows: int) -> list[list[str]]:
    """One list of words a row; an empty list if no row has any."""
    array = arrays.get(tensor)
    if array is None or not array.size:
        return []
    name = TEXT_INPUTS[tensor]
    words = [
        parse_words([decode_utf8(name, _bytes(word)) for word in row])
        for row in array.reshape(rows, -1)
    ]
    return words if any(words) else []


def _bias(arrays: Mapping[str, np.ndarray], rows: int) -> list[list[tuple[str, float]]]:
    words = arrays.get("EMBEDDING_BIAS_WORDS")
    weights = arrays.get("EMBEDDING_BIAS_WEIGHTS")
    if words is None or not any(_bytes(word) for word in words.reshape(-1)):
        return []
    if weights is None or weights.size != words.size:
        got = 0 if weights is None else weights.size
        raise RequestError(
            f"embedding_bias_weights: {got} weights for {words.size} embedding_bias_words;"
            " send one for each"
        )
    if not np.isfinite(weights).all():
        raise RequestError("embedding_bias_weights: must be finite numbers")
    return [
        [
            (decode_utf8("embedding_bias_words", _bytes(word)), float(weight))
            for word, weight in zip(word_row, weight_row, strict=True)
            if _bytes(word)
        ]
        for word_row, weight_row in zip(
            words.reshape(rows, -1), weights.reshape(rows, -1), strict=True
        )
    ]
