# SPDX-License-Identifier: Apache-2.0
"""`tensorrt_llm` for Python engines: requests in, streams of token ids out.

Only used where the engine is not TensorRT-LLM itself (then this model is configuration only). All
that is Triton lives here and in `answers.py`; `engines/` knows nothing of it. A request's way:
`execute` -> `Scheduler` -> `Answer.feed` -> a sender thread -> Triton.
"""

import itertools
import logging
import os
import signal
from typing import Any

import numpy as np

from trellis.contract.lora_adapters import parse_adapters
from trellis.contract.sampling_fields import NOT_DECOUPLED
from trellis.engine_host.answers import (
    INTERNAL,
    INVALID,
    RETURNS,
    UNAVAILABLE,
    Answer,
    Row,
    empty_response,
    final_flag,
)
from trellis.engine_host.cancellation import CancellationWatch
from trellis.engine_host.disconnect_listener import DisconnectListener, client_token
from trellis.engine_host.engines.engine import TOKENIZER_SAMPLE, Engine, EngineSettings, Sampling
from trellis.engine_host.engines.engine_process import EngineProcess
from trellis.engine_host.engines.gpus import choose_gpus
from trellis.engine_host.engines.kinds import ENGINE_TYPES
from trellis.engine_host.metrics import Metrics
from trellis.engine_host.queue import Overloaded, RequestQueue
from trellis.engine_host.rejections import Refusals
from trellis.engine_host.sampling_inputs import read_sampling, read_words
from trellis.engine_host.scheduler import Admission, Scheduler
from trellis.engine_host.senders import Senders
from trellis.errors import RequestError, one_line
from trellis.ipc.server_lifetime import end_with_server
from trellis.panics import guarded
from trellis.pipeline.hooks import WHOLE_ONLY, needs_whole_answers
from trellis.pipeline.limits import RequestLimits
from trellis.pipeline.model_settings import ConfigError, ModelSettings, load_tokenizer
from trellis.pipeline.stop_strings import StopMatcher
from trellis.tokenizers import Tokenizer

logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
log = logging.getLogger("trellis.model")

CLIENT_NAMES = {"streaming": "stream"}  # of flags, where the client's name is another
NEEDED = ("input_ids", "input_lengths", "request_output_len")


class TritonPythonModel:
    """Triton's entry point: `initialize` once, `execute` a batch of requests."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine and the tokenizer; raises with the parameter's name."""
        end_with_server()
        settings = ModelSettings.read(args)
        self.engine_type = settings.text("engine_type")
        self.limits = RequestLimits.read(settings)
        self.vocab_size = settings.integer("vocab_size")
        self.max_seq_len = settings.integer("max_seq_len")
        self.kv_cache_tokens = settings.integer("max_tokens_in_paged_kv_cache")
        self.exclude_input = settings.flag("exclude_input_in_output", True)
        whole = WHOLE_ONLY if needs_whole_answers(settings.folder) else ""
        self.no_streams = whole if settings.decoupled else NOT_DECOUPLED
        self.tokenizer = load_tokenizer(settings)
        self.senders = Senders()
        self.refusals = Refusals()
        line: RequestQueue[Admission] = RequestQueue(
            settings.max_batch_size,
            settings.integer("max_queue_size") or 0,
            (settings.integer("queue_timeout_microseconds") or 0) / 1e6,
        )
        sample = _sample(self.tokenizer)
        self.loop = Scheduler(
            lambda: load_engine(self.engine_type, settings, sample), self.senders, line
        )
        self.watch = CancellationWatch(self.loop, Metrics().report)
        self.gone = DisconnectListener(self._cancel_clients)
        self.keys = itertools.count(1)

    def execute(self, requests: list[Any]) -> None:
        """Hand every request to the scheduler; its answer leaves from a sender thread."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._accept(request, sender)
            except RequestError as refused:
                self.refusals.send(sender, str(refused), INVALID)
            except Overloaded as overloaded:
                self.refusals.send(sender, str(overloaded), UNAVAILABLE)
            except Exception as error:
                log.error("a request could not be read: %s", one_line(error))
                self.refusals.send(sender, f"the request could not be read: {error}", INTERNAL)

    def finalize(self) -> None:
        """End every stream, then the threads."""
        self.gone.close()
        self.watch.close()
        self.loop.close()
        self.senders.close()
        self.refusals.close()

    def _accept(self, request: Any, sender: Any) -> None:
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        request_id = _request_id(request)
        if _flag(arrays, "stop", False):
            self._stop(request_id)
            response = empty_response(len(arrays["input_ids"]), arrays.get("stream_key"))
            sender.send(response, flags=final_flag())
            return
        streaming = _flag(arrays, "streaming", False)
        if streaming and self.no_streams:
            raise RequestError(self.no_streams)
        prompts = read_prompts(arrays, self.vocab_size)
        _check_decoder(arrays, len(prompts))
        rows = range(len(prompts))
        samplings = [self._sampling(arrays, row, len(prompts[row])) for row in rows]
        if len({sampling.sequences for sampling in samplings}) > 1:
            raise RequestError("num_return_sequences: the prompts of one request must share it")
        skip = _choice(arrays, "skip_special_tokens")
        client, step = client_token(request), _flag(arrays, "ensemble_step", False)
        keyed = "stream_key" in arrays and "stream_key" in request.requested_output_names()
        answer = Answer(
            sender,
            [self._row(arrays, row, samplings[row], prompts[row], skip, streaming) for row in rows],
            streaming=streaming,
            returns=frozenset(name for name in RETURNS if _flag(arrays, f"return_{name}", False)),
            request_id=request_id,
            client=client,
            ensemble_step=step,
            # The HTTP gateway knows a stream by its connection; each tensor of a chunk costs.
            keyed=(step or not client) and keyed,
            skip_special_tokens=skip,
            lengths=not step and not client,
        )
        self.loop.submit(
            [Admission(next(self.keys), prompts[row], samplings[row], answer, row) for row in rows]
        )
        if answer.client in self.gone:  # it left before its request was here
            self.loop.cancel(answer)

    def _stop(self, request_id: str) -> None:
        """End the requests of that id, with what they have. Raises RequestError without one."""
        if not request_id:
            raise RequestError("stop: needs the id of the request to end; send it as request_id")
        self.loop.stop_where(lambda answer: answer.request_id == request_id)

    def _cancel_clients(self, tokens: frozenset[str]) -> None:
        self.loop.cancel_where(lambda answer: answer.client in tokens)

    def _sampling(self, arrays: dict[str, np.ndarray], row: int, length: int) -> Sampling:
        sampling = read_sampling(arrays, row, self.engine_type)
        self.limits.check_max_tokens(sampling.max_tokens)
        several = "num_return_sequences" if sampling.beam_width == 1 else "beam_width"
        self.limits.check_sequences(several, sampling.sequences)
        self.limits.check_words("bad_words", list(sampling.bad_words))
        more = set(sampling.stop_token_ids) - set(self.tokenizer.end_ids)  # the client's own
        self.limits.check_stop_token_ids(len(more))
        self.loop.engine.refuse(sampling)
        known = self.vocab_size or self.tokenizer.vocab_size
        if sampling.end_id >= known:
            raise RequestError(
                f"end_id: {sampling.end_id} is not in the vocabulary; use 0 to {known - 1}, or -1"
                " for none"
            )
        if (most := max(sampling.stop_token_ids, default=-1)) >= known:
            raise RequestError(
                f"stop_token_ids: {most} is not in the vocabulary; use 0 to {known - 1}"
            )
        if self.max_seq_len and length + sampling.max_tokens > self.max_seq_len:
            raise RequestError(
                f"max_tokens: {sampling.max_tokens} and a prompt of {length} tokens do not fit in"
                f" the {self.max_seq_len} tokens of this engine's context; send at most"
                f" {max(self.max_seq_len - length, 0)}"
            )
        if self.kv_cache_tokens and length + sampling.max_tokens > self.kv_cache_tokens:
            raise RequestError(
                f"max_tokens: {sampling.max_tokens} and a prompt of {length} tokens do not fit in"
                f" the KV cache, {self.kv_cache_tokens} tokens (max_tokens_in_paged_kv_cache)"
            )
        return sampling

    def _row(
        self,
        arrays: dict[str, np.ndarray],
        row: int,
        sampling: Sampling,
        prompt: np.ndarray,
        skip: bool | None,
        streaming: bool,
    ) -> Row:
        words = read_words("stop_words", arrays, row)
        self.limits.check_words("stop_words", words)
        exclude = _flag(arrays, "exclude_input_in_output", self.exclude_input)
        # A stream has new tokens alone, as that of TensorRT-LLM's own engine.
        prefix = [] if exclude or streaming else prompt.tolist()
        return Row(
            stream_key=int(arrays["stream_key"].reshape(-1)[row]) if "stream_key" in arrays else 0,
            sampling=sampling,
            input_tokens=len(prompt),
            prefix=prefix,
            matcher=lambda: (
                StopMatcher(
                    self.tokenizer, words, sampling.min_tokens, prefix, sampling.bad_words, skip
                )
                if words or sampling.bad_words
                else None
            ),
        )


def _adapters(settings: ModelSettings) -> dict[str, str]:
    """The folders of the LoRA adapters by name. Raises ConfigError."""
    try:
        named = parse_adapters(settings.text("lora_adapters", ""))
    except ValueError as error:
        raise ConfigError(f"{settings.name}: parameter {error}") from None
    return {name: str(settings.folder / folder) for name, folder in named.items()}


def _sample(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of TOKENIZER_SAMPLE; () from a tokenizer that fails at it."""
    try:
        return tuple(guarded(tokenizer.encode, TOKENIZER_SAMPLE))
    except Exception:
        return ()


def load_engine(engine_type: str, settings: ModelSettings, sample: tuple[int, ...]) -> Engine:
    """The engine of that type; `sample`: what the tokenizer makes of TOKENIZER_SAMPLE.

    Raises ConfigError for an unknown one.
    """
    if engine_type not in ENGINE_TYPES:
        raise ConfigError(
            f"parameter engine_type is {engine_type!r}; known: {', '.join(ENGINE_TYPES)}"
        )
    engine_settings = EngineSettings(
        path=settings.path("gpt_model_path", "."),
        max_batch_size=settings.max_batch_size,
        max_seq_len=settings.integer("max_seq_len"),
        max_tokens_in_paged_kv_cache=settings.integer("max_tokens_in_paged_kv_cache"),
        max_attention_window_size=settings.integer("max_attention_window_size"),
        enable_kv_cache_reuse=settings.flag("enable_kv_cache_reuse", True),
        kv_cache_free_gpu_mem_fraction=settings.number("kv_cache_free_gpu_mem_fraction"),
        dtype=settings.text("dtype", ""),
        attention_implementation=settings.text("attention_implementation", ""),
        lora_adapters=_adapters(settings),
        tokenizer=settings.path("tokenizer_dir", "tokenizer"),
        tokenizer_sample=sample,
        leader_left=_end_server,
    )
    if engine_type != "openvino":
        gpus = choose_gpus(settings.text("gpu_device_ids", ""), os.environ)
        if gpus is not None:  # before anything of CUDA is touched
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    return EngineProcess(engine_type, engine_settings)


def read_prompts(arrays: dict[str, np.ndarray], vocab_size: int | None) -> list[np.ndarray]:
    """The ids of each row, [n] int64. Raises RequestError for lengths and ids that cannot be."""
    for name in NEEDED:
        if name not in arrays:
            raise RequestError(f"{name}: missing")
    ids, lengths = arrays["input_ids"], arrays["input_lengths"].reshape(-1)
    if ids.ndim != 2 or ids.shape[0] != len(lengths):
        raise RequestError(
            f"input_lengths: {len(lengths)} for input_ids of shape {list(ids.shape)}"
        )
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= ids.shape[1]:
        raise RequestError(f"input_lengths: {lengths.tolist()} must be 1 to {ids.shape[1]}")
    prompts = [row[:length].astype(np.int64) for row, length in zip(ids, lengths, strict=True)]
    for prompt in prompts:
        if prompt.min() < 0 or (vocab_size and prompt.max() >= vocab_size):
            raise RequestError(
                f"text_input: has the token ids {prompt.min()} to {prompt.max()}; the engine knows"
                f" 0 to {vocab_size - 1 if vocab_size else 'more'}, so it does not belong to this"
                " tokenizer, or a token of the text means an image or a sound"
            )
    return prompts


def _check_decoder(arrays: dict[str, np.ndarray], rows: int) -> None:
    """Raise RequestError for a decoder's prompt; one id a row stands for none."""
    if "decoder_input_ids" in arrays and arrays["decoder_input_ids"].size > rows:
        raise RequestError("decoder_input_ids: this engine has no decoder prompt; leave it out")


def _request_id(request: Any) -> str:
    try:
        return str(request.request_id())
    except UnicodeDecodeError as error:
        raise RequestError("id: not valid UTF-8") from error


def _end_server() -> None:
    """End the server of a rank that has nobody to follow any more."""
    os.kill(os.getppid(), signal.SIGTERM)


def _flag(arrays: dict[str, np.ndarray], name: str, default: bool) -> bool:
    """A switch of the whole request. Raises RequestError if its rows differ."""
    sent = _choice(arrays, name)
    return default if sent is None else sent


def _choice(arrays: dict[str, np.ndarray], name: str) -> bool | None:
    """A switch of the whole request, None if not sent. Raises RequestError if rows differ."""
    array = arrays.get(name)
    if array is None or not array.size:
        return None
    if array.any() != array.all():
        raise RequestError(
            f"{CLIENT_NAMES.get(name, name)}: the prompts of one request must share it"
        )
    return bool(array.reshape(-1)[0])
