"""Streams of TensorRT-LLM's own engine, known by their ids: many at once, broken off, reused."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.grpc as triton

from support.standin import Script
from support.standin_server import Served, serve
from trellis.grpc_client import generate, texts
from trellis.tokenizers import Tokenizer

TEXT = "안녕하세요 세계 😀 naïve — " * 4
WORDS = ["apples", "bears", "cats", "dogs", "eels", "foxes", "geese", "hens"]


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    standin_library: Path,
    llama_folder: Path,
    llama: Tokenizer,
) -> Iterator[Served]:
    """A prompt that ends with a word is answered with TEXT and that word."""
    scripts = [
        Script(prompt=llama.encode_fragment(f" {word}"), answer=answer(llama, word))
        for word in WORDS
    ]
    failing = Script(prompt=llama.encode_fragment(" fail"), answer=[1526, 1526], failure="broken")
    folder = tmp_path_factory.mktemp("streams")
    delay: dict[str, Any] = {"token_delay_us": "5000"}
    with serve(
        "1.x", folder, standin_library, llama_folder, [*scripts, failing], **delay
    ) as running:
        yield running


def answer(llama: Tokenizer, word: str) -> list[int]:
    return llama.encode(TEXT + word)[1:]


def stream(served: Served, word: str, request_id: str) -> str:
    """One stream over a connection of its own."""
    address = f"127.0.0.1:{served.server.settings.grpc_port}"
    with triton.InferenceServerClient(address) as client:
        values = {"max_tokens": 500, "stream": True}
        chunks = list(texts(generate(client, [f"Tell me {word}".encode()], values, request_id)))
    assert len(chunks) > 20
    return "".join(chunks)


def test_many_streams_at_once_and_ids_used_again_are_never_mixed_up(served: Served) -> None:
    jobs = [(WORDS[n % len(WORDS)], f"id-{n}") for n in range(48)]
    for _ in range(2):  # the same ids, with other words
        with ThreadPoolExecutor(48) as pool:
            got = list(pool.map(lambda job: stream(served, *job), jobs))
        assert got == [TEXT + word for word, _ in jobs]
        jobs = [(WORDS[(n + 3) % len(WORDS)], f"id-{n}") for n in range(48)]


def test_an_id_starts_afresh_after_a_stream_that_was_broken_off(served: Served) -> None:
    for _ in range(3):
        for chunk in texts(
            generate(
                served.client,
                [b"Tell me bears"],
                {"max_tokens": 500, "stream": True},
                "again",
            )
        ):
            if "안" in chunk:  # in the middle of the text, and perhaps of a character
                break
        time.sleep(1)  # chunks of it that are on their way belong to no stream after that
        assert stream(served, "cats", "again") == TEXT + "cats"


def test_an_id_is_known_over_http_too(served: Served) -> None:
    body = {"id": "http-1", "text_input": "Tell me dogs", "max_tokens": 500, "stream": True}
    url = f"{served.server.settings.url}/v2/models/ensemble/generate_stream"
    chunks = []
    with httpx.Client(timeout=20) as http, http.stream("POST", url, json=body) as response:
        for line in response.iter_lines():
            if line:
                chunks.append(json.loads(line.removeprefix("data: "))["text_output"])
    assert len(chunks) > 20
    assert "".join(chunks) == TEXT + "dogs"


def test_an_unstreamed_request_between_two_streams_of_its_id(served: Served) -> None:
    assert stream(served, "eels", "mixed") == TEXT + "eels"
    assert served.text("Tell me hens", "mixed", max_tokens=500) == [TEXT + "hens"]
    assert stream(served, "foxes", "mixed") == TEXT + "foxes"


def test_a_stream_that_the_engine_breaks_off_is_an_error_for_that_request(served: Served) -> None:
    with pytest.raises(triton.InferenceServerException, match="broken"):
        served.text("Please fail", "fails", max_tokens=500, stream=True)
    assert stream(served, "geese", "fails") == TEXT + "geese"
