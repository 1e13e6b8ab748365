"""Limits of one request: each refused by the field's name, with the limit and its parameter."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support.asking import ask, refused, tensor
from support.serving import serve_demo
from trellis.server.process import Server

LIMITS = {
    "max_prompt_bytes": "60",
    "max_input_len": "16",
    "max_tokens_limit": "20",
    "max_prompts_per_request": "3",
    "max_words": "4",
    "max_word_characters": "10",
    "max_return_sequences": "2",
}
SAMPLED = {"temperature": 0.7, "seed": 1}


@pytest.fixture(scope="module")
def limited(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server whose limits are small."""
    with serve_demo(demo_engine, tmp_path_factory.mktemp("limited"), LIMITS) as server:
        yield server


@pytest.fixture
def client(limited: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=limited.settings.url, timeout=60) as http:
        yield http


# A request at its limit, and one beyond: (at, beyond, what the error says).
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "prompt in bytes": (
        {"text_input": "a" * 30 + " b" * 7},
        {"text_input": "안" * 21},
        "text_input: the prompt has 63 bytes; send at most 60 (max_prompt_bytes)",
    ),
    "prompt in tokens": (
        {"text_input": "a b" + " c" * 14},
        {"text_input": "a b" + " c" * 15},
        "text_input: the prompt has 17 tokens, this engine takes at most 16 (max_input_len)",
    ),
    "max_tokens": (
        {"max_tokens": 20},
        {"max_tokens": 21},
        "max_tokens: 21 tokens; send at most 20 (max_tokens_limit)",
    ),
    "stop words": (
        {"stop_words": list("qxyz")},
        {"stop_words": list("qxyzw")},
        "stop_words: 5 words; send at most 4 (max_words)",
    ),
    "length of a stop word": (
        {"stop_words": ["q" * 10]},
        {"stop_words": ["q" * 11]},
        "stop_words: 11 characters in a word; send at most 10 (max_word_characters)",
    ),
    "sequences": (
        {"num_return_sequences": 2, **SAMPLED},
        {"num_return_sequences": 3, **SAMPLED},
        "num_return_sequences: 3 sequences; send at most 2 (max_return_sequences)",
    ),
    "prompts": (
        {"text_input": ["a"] * 3, "max_tokens": [4] * 3},
        {"text_input": ["a"] * 4, "max_tokens": [4] * 4},
        "text_input: 4 prompts in one request; send at most 3 (max_prompts_per_request)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_at_the_limit_is_served_and_beyond_is_refused_by_name(
    client: httpx.Client, case: str
) -> None:
    at, beyond, message = CASES[case]
    body = {"text_input": "Hello", "max_tokens": 4}
    answer = client.post("/v2/models/ensemble/generate", json=body | at)
    assert answer.status_code == 200, answer.text
    assert message in refused(client, body | beyond)


@pytest.mark.parametrize("case", ["bad_words", "embedding_bias_words"])
def test_words_that_this_engine_may_not_do_have_the_same_limits(
    client: httpx.Client, case: str
) -> None:
    body = {"text_input": "Hello", "max_tokens": 4, case: list("qxyzw")}
    body |= {"embedding_bias_weights": [0.0] * 5} if case == "embedding_bias_words" else {}
    assert f"{case}: 5 words; send at most 4 (max_words)" in refused(client, body)


def test_the_engine_asked_directly_keeps_the_limits(limited: Server) -> None:
    inputs = [
        tensor("input_ids", "INT32", np.array([[504, 3575]], np.int32)),
        tensor("input_lengths", "INT32", np.array([[2]], np.int32)),
        tensor("request_output_len", "INT32", np.array([[21]], np.int32)),
        tensor("stream_key", "UINT64", np.array([[1 << 20]], np.uint64)),
    ]
    errors: list[InferenceServerException] = []
    with triton.InferenceServerClient(f"localhost:{limited.settings.grpc_port}") as client:
        client.start_stream(lambda result, error: errors.append(error))
        client.async_stream_infer("tensorrt_llm", inputs)
        client.stop_stream()
    assert "max_tokens: 21 tokens; send at most 20 (max_tokens_limit)" in str(errors[0])


def test_defaults_come_from_the_engine(server: Server, http: httpx.Client) -> None:
    url = f"http://127.0.0.1:{server.triton_port}/v2/models/preprocessing/config"
    config = httpx.get(url).json()["parameters"]
    found = {name: config[name]["string_value"] for name in LIMITS}
    assert found == {
        "max_prompt_bytes": str(8191 * 64),
        "max_input_len": "8191",
        "max_tokens_limit": "8192",
        "max_prompts_per_request": "",
        "max_words": "64",
        "max_word_characters": "1024",
        "max_return_sequences": "64",
    }
    assert ask(http, "Hello", max_tokens=4)["text_output"]
