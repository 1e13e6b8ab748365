"""Every input of `tensorrt_llm`, with a value that asks for something: none may be ignored."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from support.paths import ROOT
from trellis.contract.client_inputs import BIAS_WORDS
from trellis.contract.sampling_fields import FIELDS
from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.sampling_inputs import REFUSED, read_sampling
from trellis.engine_host.step_inputs import read_step_inputs, with_step_inputs
from trellis.errors import RequestError

VOCAB_SIZE = 100
# What the model around the engine reads, and no library is told of.
AROUND = frozenset(
    (
        "input_ids",
        "input_lengths",
        "decoder_input_ids",  # rejected, but for the one id that stands for none
        "decoder_input_lengths",
        "stream_key",
        "ensemble_step",
        "stop",
        "streaming",
        "exclude_input_in_output",
        "skip_special_tokens",
        "pad_id",
        "stop_words",
        "return_num_input_tokens",
        "return_num_output_tokens",
        "return_finish_reason",
    )
)
NEUTRAL: dict[str, Any] = {
    "request_output_len": np.array([[16]], np.int32),
    "end_id": np.array([[2]], np.int32),
}
WARM: dict[str, Any] = {"temperature": np.array([[0.7]], np.float32)}
ASKED: dict[str, Any] = {
    "request_output_len": np.array([[7]], np.int32),
    "end_id": np.array([[5]], np.int32),
    "stop_token_ids": np.array([[7, 8]], np.int32),
    "bad_words": np.array([[b"no"]], object),
    "bad_words_list": np.array([[[7], [1]]], np.int32),
    "embedding_bias": np.eye(1, VOCAB_SIZE, 7, dtype=np.float32),
    "num_return_sequences": np.array([[3]], np.int32),
    "beam_width": np.array([[2]], np.int32),
    "temperature": np.array([[0.7]], np.float32),
    "runtime_top_k": np.array([[40]], np.int32),
    "runtime_top_p": np.array([[0.9]], np.float32),
    "min_p": np.array([[0.1]], np.float32),
    "len_penalty": np.array([[0.5]], np.float32),
    "repetition_penalty": np.array([[1.2]], np.float32),
    "min_tokens": np.array([[3]], np.int32),
    "min_length": np.array([[3]], np.int32),
    "presence_penalty": np.array([[0.5]], np.float32),
    "frequency_penalty": np.array([[0.5]], np.float32),
    "no_repeat_ngram_size": np.array([[3]], np.int32),
    "seed": np.array([[9]], np.uint64),
    "random_seed": np.array([[9]], np.uint64),
    "return_log_probs": np.array([[True]]),
    "return_context_logits": np.array([[True]]),
    "return_generation_logits": np.array([[True]]),
    "return_perf_metrics": np.array([[True]]),
    "return_kv_cache_reuse_stats": np.array([[True]]),
    "prompt_embedding_table": np.ones((1, 2, 2), np.float16),
    "prompt_table_extra_ids": np.array([[1]], np.uint64),
    "prompt_vocab_size": np.array([[4]], np.int32),
    "lora_name": np.array([[b"polite"]], object),
    "lora_task_id": np.array([[1]], np.uint64),
    "lora_weights": np.ones((1, 2, 2), np.float16),
    "lora_config": np.ones((1, 2, 3), np.int32),
    "guided_decoding_guide_type": np.array([[b"regex"]], object),
    "guided_decoding_guide": np.array([[b"[ab]+"]], object),
}
BESIDE: dict[str, Mapping[str, Any]] = {  # what an input means nothing without
    "seed": WARM,
    "random_seed": WARM,
    "num_return_sequences": WARM,
    "guided_decoding_guide_type": {
        "guided_decoding_guide": ASKED["guided_decoding_guide"],
    },
    "guided_decoding_guide": {
        "guided_decoding_guide_type": ASKED["guided_decoding_guide_type"],
    },
}


# The step socket's own inputs.
STEP_ASKED: dict[str, Any] = {
    "top_log_probs": 3,
    "prompt_log_probs": True,
    "return_cached_tokens": True,  # told where the library tells it, and never rejected
    "priority": -1,
    "bias_ids": [7],
    "bias_weights": [1.5],
    "return_total_tokens": True,
    "include_stop_words": True,
}
STEP_BESIDE: dict[str, Mapping[str, Any]] = {
    "bias_ids": {"bias_weights": [1.5]},
    "bias_weights": {"bias_ids": [7]},
}
# Not to the library: it says them unasked, or the engine host does them.
NOT_TOLD = frozenset(("return_cached_tokens", "return_total_tokens", "include_stop_words"))


def engine_inputs() -> list[str]:
    """The inputs in the template."""
    text = (ROOT / "model_repo_src" / "tensorrt_llm" / "config.pbtxt").read_text()
    return re.findall(r'\{ name: "(\w+)"', text[: text.index("output [")])


def asked(name: str) -> Sampling:
    """What a request with this input asks. Raises RequestError if no Python engine has it."""
    sent = NEUTRAL | dict(BESIDE.get(name, {})) | {name: ASKED[name]}
    return read_sampling(sent, 0, "engine")


def step_asked(name: str) -> Sampling:
    """What a request with this input of the step socket's own asks."""
    sent = dict(STEP_BESIDE.get(name, {})) | {name: STEP_ASKED[name]}
    return with_step_inputs(read_sampling(NEUTRAL, 0, "engine"), read_step_inputs(sent))


def answer(name: str, refuse: Callable[[Sampling], None]) -> Sampling | RequestError:
    """What an engine with these limits is asked, or how it rejects that."""
    try:
        sampling = step_asked(name) if name in STEP_ASKED else asked(name)
        refuse(sampling)
    except RequestError as error:
        return error
    return sampling


def without(name: str) -> Sampling:
    """The same request without the input, and without what means nothing alone."""
    beside = {} if name.startswith("guided") else dict(BESIDE.get(name, {}))
    return read_sampling(NEUTRAL | beside, 0, "engine")


def client_name(name: str) -> str:
    """What a client calls an input."""
    field = FIELDS.get(name)
    named = {"embedding_bias": BIAS_WORDS, "bias_ids": BIAS_WORDS, **REFUSED}
    return field.client if field else named.get(name, name)


def names_it(error: RequestError, name: str) -> bool:
    """Whether a rejection is of this input, or of the one that it comes with."""
    beside = BESIDE | STEP_BESIDE
    return error.field in {client_name(each) for each in (name, *beside.get(name, {}))}
