"""Bad input: an error that names the field, for that request alone."""

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support.asking import ask, refused, tensor
from support.engines import ENGINE
from trellis.grpc_client import generate
from trellis.server.process import Server

BAD_HTTP: dict[str, tuple[str, dict[str, Any]]] = {
    "empty prompt": ("text_input", {"text_input": ""}),
    "no prompt": ("text_input", {"text_input": None}),
    "no max_tokens": ("max_tokens", {"max_tokens": None}),
    "max_tokens zero": ("max_tokens", {"max_tokens": 0}),
    "max_tokens negative": ("max_tokens", {"max_tokens": -5}),
    "max_tokens beyond the context": ("max_tokens", {"max_tokens": 8192}),
    "top_p above one": ("top_p", {"top_p": 7}),
    "top_p negative": ("top_p", {"top_p": -0.1}),
    "top_k negative": ("top_k", {"top_k": -1}),
    "temperature negative": ("temperature", {"temperature": -1}),
    "too many stop words": ("stop_words", {"stop_words": ["a"] * 65}),
    "a stop word too long": ("stop_words", {"stop_words": ["a" * 1025]}),
    "too many sequences": ("num_return_sequences", {"num_return_sequences": 65}),
    "repetition_penalty zero": ("repetition_penalty", {"repetition_penalty": 0}),
    "min_tokens above max_tokens": ("min_tokens", {"min_tokens": 99}),
    "two seeds": ("random_seed", {"seed": 1, "random_seed": 2}),
    "prompt longer than the context": ("text_input", {"text_input": "word " * 9000}),
    "a megabyte of prompt": ("text_input", {"text_input": "x" * 1_000_000}),
    "ten megabytes of prompt": ("the body is larger", {"text_input": "x" * 10_000_000}),
    "end_id not in the vocabulary": ("end_id", {"end_id": 49152}),
    "end_id below -1": ("end_id", {"end_id": -2}),
    "pad_id not in the vocabulary": ("pad_id", {"pad_id": 10**6}),
    "too many bad words": ("bad_words", {"bad_words": ["a"] * 65}),
    "bias without weights": ("embedding_bias_weights", {"embedding_bias_words": ["yes"]}),
    "too many beams": ("beam_width", {"beam_width": 17}),
    "several greedy sequences": ("num_return_sequences", {"num_return_sequences": 2}),
    "logits": ("return_context_logits", {"return_context_logits": True}),
    "perf metrics": ("return_perf_metrics", {"return_perf_metrics": True}),
    "lora": ("lora_task_id", {"lora_task_id": 1}),
    "an adapter": ("lora_name", {"lora_name": "polite"}),
    "a guide of no type": ("guided_decoding_guide_type", {"guided_decoding_guide": "{}"}),
    "an unknown guide": ("guided_decoding_guide_type", {"guided_decoding_guide_type": "yaml"}),
    "decoder prompt": ("decoder_text_input", {"decoder_text_input": "x"}),
    "stop without an id": ("stop", {"stop": True}),
    "prompt table": ("prompt_vocab_size", {"prompt_vocab_size": 5}),
}
if ENGINE != "llmapi":  # which takes any
    BAD_HTTP["presence_penalty out of range"] = ("presence_penalty", {"presence_penalty": 3})
if ENGINE == "openvino":  # which has none
    BAD_HTTP["embedding bias"] = (
        "embedding_bias_words",
        {"embedding_bias_words": ["yes"], "embedding_bias_weights": [1.0]},
    )


@pytest.fixture(scope="module")
def bystander(http: httpx.Client) -> Iterator[None]:
    """A good request that runs all the while, and must not notice."""
    stop = threading.Event()
    expected = ask(http, "The capital of France is", max_tokens=8)["text_output"]
    texts: list[str] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                texts.append(ask(http, "The capital of France is", max_tokens=8)["text_output"])
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    stop.set()
    thread.join()
    assert failures == []
    assert texts
    assert set(texts) == {expected}


@pytest.mark.promise("rejections")
@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("case", BAD_HTTP)
def test_a_bad_http_request_is_refused_by_name(http: httpx.Client, case: str) -> None:
    field, change = BAD_HTTP[case]
    body: dict[str, Any] = {"text_input": "Hello", "max_tokens": 4} | change
    message = refused(http, {key: value for key, value in body.items() if value is not None})
    assert (f"{field}: " if field.isidentifier() else field) in message


def test_neutral_values_of_what_the_engine_lacks_are_accepted(http: httpx.Client) -> None:
    neutral: dict[str, Any] = {
        "bad_words": [""],
        "beam_width": 1,
        "length_penalty": 1.0,
        "return_context_logits": False,
        "return_generation_logits": False,
        "return_perf_metrics": False,
        "prompt_vocab_size": 0,
        "lora_task_id": 0,
        "embedding_bias_words": [""],
        "embedding_bias_weights": [0.0],
        "guided_decoding_guide": "",
        "lora_name": "",
        "decoder_text_input": "",
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    assert ask(http, "Hello", max_tokens=3, **neutral)["text_output"]


def grpc_error(server: Server, inputs: list[triton.InferInput]) -> str:
    """The message of the error that these tensors are answered with."""
    errors: list[Exception | None] = []
    done = threading.Event()

    def answer(result: Any, error: Exception | None) -> None:
        errors.append(error)
        done.set()

    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        client.start_stream(answer)
        client.async_stream_infer("ensemble", inputs)
        assert done.wait(30)
    assert isinstance(errors[0], InferenceServerException), errors
    return str(errors[0].message())


PROMPT = tensor("text_input", "BYTES", np.array([[b"Hello"]], np.object_))
LENGTH = tensor("max_tokens", "INT32", np.array([[4]], np.int32))


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", np.nan), ("top_p", np.nan), ("temperature", np.inf)]
)
def test_numbers_that_are_none_are_refused_by_name(server: Server, name: str, value: float) -> None:
    bad = tensor(name, "FP32", np.array([[value]], np.float32))
    assert f"{name}: " in grpc_error(server, [PROMPT, LENGTH, bad])


@pytest.mark.parametrize("text", [b"ok \xff\xfe", "\ud800".encode("utf-8", "surrogatepass")])
def test_text_that_is_no_utf8_is_refused_by_name(server: Server, text: bytes) -> None:
    bad = tensor("text_input", "BYTES", np.array([[text]], np.object_))
    message = grpc_error(server, [bad, LENGTH])
    assert "text_input: not valid UTF-8 at byte" in message


def test_words_that_are_no_utf8_are_refused_by_name(server: Server) -> None:
    bad = tensor("stop_words", "BYTES", np.array([[b"\xff"]], np.object_))
    assert "stop_words: " in grpc_error(server, [PROMPT, LENGTH, bad])


def test_a_wrong_dtype_is_refused_by_name(server: Server) -> None:
    bad = tensor("max_tokens", "FP32", np.array([[4.0]], np.float32))
    assert "max_tokens" in grpc_error(server, [PROMPT, bad])


def test_words_of_a_wrong_shape_are_refused_by_name(server: Server) -> None:
    bad = tensor("bad_words", "BYTES", np.array([[[b"a"], [b"b"]]], np.object_))
    assert "bad_words" in grpc_error(server, [PROMPT, LENGTH, bad])


@pytest.mark.promise("rejections")
def test_one_bad_row_refuses_its_request_only(server: Server) -> None:
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        with pytest.raises(InferenceServerException, match="text_input: the prompt is empty"):
            list(generate(client, [b"fine", b""], {"max_tokens": 2}))
        (answer,) = generate(client, [b"fine"], {"max_tokens": 2})
    assert answer["text_output"].size == 1
