"""Asking the ensemble, in the few ways that tests need."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import tritonclient.grpc as triton

from trellis.grpc_client import generate

ENSEMBLE = "/v2/models/ensemble"
KOREAN = "안녕하세요 세계 😀 naïve"


def chat(question: str) -> str:
    """The prompt in the form that the demo model was trained on."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def ask(http: httpx.Client, text: str, **parameters: Any) -> dict[str, Any]:
    """The answer of /generate; fails the test if it is an error."""
    parameters.setdefault("max_tokens", 32)
    response = http.post(
        f"{ENSEMBLE}/generate", json={"text_input": text, "parameters": parameters}
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refused(http: httpx.Client, body: dict[str, Any]) -> str:
    """The error message of /generate; fails the test unless it is a 4xx."""
    response = http.post(f"{ENSEMBLE}/generate", json=body)
    assert 400 <= response.status_code < 500, (response.status_code, response.text)
    message: str = response.json()["error"]
    return message


def stream(http: httpx.Client, text: str, **parameters: Any) -> Iterator[bytes]:
    """The texts of /generate_stream as the bytes of the event stream hold them."""
    parameters.setdefault("max_tokens", 32)
    body = {"text_input": text, "stream": True, "parameters": parameters}
    with http.stream("POST", f"{ENSEMBLE}/generate_stream", json=body) as response:
        assert response.status_code == 200, response.read()
        for line in _lines(response):
            event = json.loads(line.decode("utf-8", "strict"))
            assert "error" not in event, event
            yield event["text_output"].encode("utf-8", "strict")


def _lines(response: httpx.Response) -> Iterator[bytes]:
    buffer = b""
    for data in response.iter_raw():
        buffer += data
        while b"\n\n" in buffer:
            line, buffer = buffer.split(b"\n\n", 1)
            yield line.removeprefix(b"data: ")


def grpc_texts(client: triton.InferenceServerClient, prompts: list[str], **values: Any) -> Any:
    """text_output of a request that does not stream, [rows x sequences] of str."""
    (response,) = generate(client, [prompt.encode() for prompt in prompts], values)
    return np.vectorize(bytes.decode)(response["text_output"])


def tensor(name: str, dtype: str, array: np.ndarray) -> triton.InferInput:
    """One input of a gRPC request, with its values."""
    made = triton.InferInput(name, list(array.shape), dtype)
    made.set_data_from_numpy(array)
    return made
